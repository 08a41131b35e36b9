//! The answer to one exec request: output in RouterOS's portions, its way to end, and the faults.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::ChannelWriteHalf;
use russh::server::Msg;

use super::console::Reply;
use super::export::{Export, mix};
use super::fault::Fault;
use super::router::Shared;
use super::wire::WireControl;

/// RouterOS never puts more into one data message.
/// <https://github.com/ytti/oxidized/issues/2346>
const LARGEST_MESSAGE: usize = 4095;

const BANNER: &str = "\r\n  MMM      MMM       KKK                          TTTTTTTTTTT      KKK\r\n  \
    MMMM    MMMM       KKK                          TTTTTTTTTTT      KKK\r\n\r\n  \
    MikroTik RouterOS (c)       https://www.mikrotik.com/\r\n\r\nPress F1 for help\r\n\r\n";
const HTML: &str = "<!DOCTYPE html>\r\n<html><head><title>Hotspot login</title></head>\r\n\
    <body><form action=\"/login\" method=\"post\">Please log in</form></body></html>\r\n";

/// What happens when the output has been sent.
enum Flow {
    /// On with the next command, or the end.
    Continue,
    /// The end, without what would have followed.
    Stop,
    /// Nothing, ever.
    Hold,
}

/// The sending side of one exec channel.
pub(super) struct Answer {
    pub(super) router: Arc<Shared>,
    pub(super) fault: Option<Fault>,
    pub(super) wire: Arc<WireControl>,
    pub(super) client: SocketAddr,
    pub(super) channel: ChannelWriteHalf<Msg>,
    pub(super) buffer: Vec<u8>,
    /// Exports begun on this connection before this one.
    pub(super) exports_before: u64,
    /// The rest of the output is lost.
    pub(super) lost: bool,
    /// The text of each whole export, where they are kept.
    pub(super) kept: Vec<Vec<u8>>,
}

impl Answer {
    /// Runs the command line to the end of the channel.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn run(mut self, line: &str) -> Result<(), russh::Error> {
        let (replies, delay) = self.router.ask(line);
        tokio::time::sleep(delay).await;
        let _deaf = (self.fault == Some(Fault::LoseTailFar)).then(|| self.wire.deafen());
        let mut exports = 0;
        for reply in replies {
            let flow = match reply {
                Reply::Text(text) => {
                    self.push(text.as_bytes()).await?;
                    Flow::Continue
                }
                Reply::Edit(_) => Flow::Continue,
                Reply::Export { secrets } => {
                    self.router.count(|counters| counters.export_begun());
                    let flow = self.export(secrets).await?;
                    exports += u32::from(matches!(flow, Flow::Continue));
                    flow
                }
            };
            match flow {
                Flow::Continue => {}
                Flow::Stop => break,
                Flow::Hold => {
                    self.flush().await?;
                    std::future::pending::<()>().await;
                }
            }
        }
        self.end().await?;
        if !self.lost {
            (0..exports).for_each(|_| self.router.count(|counters| counters.export_whole()));
            for text in &self.kept {
                self.router.keep(self.client, text);
            }
        }
        Ok(())
    }

    /// `exit-status`, then CLOSE, and no EOF: the order in RouterOS's packet logs.
    async fn end(&mut self) -> Result<(), russh::Error> {
        if self.fault == Some(Fault::DataAfterExitStatus) {
            self.channel.exit_status(0).await?;
            self.flush().await?;
            return self.channel.close().await;
        }
        self.flush().await?;
        match self.fault {
            Some(Fault::CloseWithoutExitStatus) => {}
            Some(Fault::ExitStatus(status)) => self.channel.exit_status(status).await?,
            _ => self.channel.exit_status(0).await?,
        }
        self.channel.close().await
    }

    async fn export(&mut self, secrets: bool) -> Result<Flow, russh::Error> {
        let text = match self.fault {
            Some(Fault::StallBeforeOutput) => return Ok(Flow::Hold),
            Some(Fault::CutThenStall) if self.exports_before > 0 => return Ok(Flow::Hold),
            Some(Fault::EmptyOutput) => "",
            Some(Fault::ErrorText) => "std failure: timeout (13)\r\n",
            Some(Fault::PermissionDenied) => "not enough permissions (9)\r\n",
            Some(Fault::BannerOnly) => BANNER,
            Some(Fault::Html) => HTML,
            Some(Fault::Noise(bytes)) => return self.noise(bytes).await,
            _ => {
                if let Some(answer) = self.router.next_answer() {
                    self.push(&answer).await?;
                    return Ok(Flow::Stop);
                }
                let export = self.router.export(secrets, self.fault);
                return self.pieces(export).await;
            }
        };
        self.push(text.as_bytes()).await?;
        Ok(Flow::Stop)
    }

    async fn pieces(&mut self, export: Export) -> Result<Flow, russh::Error> {
        let half = export.approximate_len() / 2;
        let mut dropping = self.fault == Some(Fault::DropConnectionMidOutput);
        if dropping {
            self.wire.cut_after(half);
        }
        let cuts = match self.fault {
            Some(Fault::Cut) => true,
            Some(Fault::CutOnce | Fault::CutThenStall | Fault::CutThenDrop) => {
                self.exports_before == 0
            }
            _ => false,
        };
        let (mut sent, mut after_item, mut paused) = (0, false, false);
        let mut kept = self.router.keeps().then(Vec::new);
        for piece in export {
            if sent >= half {
                match self.fault {
                    Some(Fault::CutThenDrop) if !cuts && !dropping && sent >= half + half / 2 => {
                        self.flush().await?;
                        // What was sent is under way by then.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        self.wire.cut_after(1);
                        dropping = true;
                    }
                    Some(Fault::StallMidOutput) => return Ok(Flow::Hold),
                    Some(Fault::CutMidLine) => {
                        let line = piece.split(|byte| *byte == b'\r').next().unwrap_or(&piece);
                        self.push(&line[..line.len().div_ceil(2)]).await?;
                        return Ok(Flow::Stop);
                    }
                    _ if cuts && after_item => return Ok(Flow::Stop),
                    Some(Fault::PauseMidOutput(time)) if !paused => {
                        paused = true;
                        self.flush().await?;
                        tokio::time::sleep(time).await;
                    }
                    Some(Fault::Interrupted) => {
                        self.push(b"#error exporting /ip socks\r\n#interrupted\r\n")
                            .await?;
                        return Ok(Flow::Stop);
                    }
                    _ => {}
                }
            }
            after_item = !piece.starts_with(b"#") && piece.contains(&b' ');
            sent += piece.len() as u64;
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&piece);
            }
            self.push(&piece).await?;
            if dropping {
                // In small messages, or the cut might fall into the very first one.
                self.flush().await?;
            }
        }
        if dropping {
            return Ok(Flow::Hold);
        }
        self.kept.extend(kept);
        Ok(Flow::Continue)
    }

    async fn noise(&mut self, bytes: u64) -> Result<Flow, russh::Error> {
        for n in 0..bytes.div_ceil(8) {
            let left = usize::try_from(bytes - n * 8).unwrap_or(8).min(8);
            self.push(&mix(n).to_be_bytes()[..left]).await?;
        }
        Ok(Flow::Stop)
    }

    /// Sends what fills whole messages, and keeps at least one byte for [`Self::flush`].
    async fn push(&mut self, bytes: &[u8]) -> Result<(), russh::Error> {
        self.buffer.extend_from_slice(bytes);
        if let Some(Fault::SlowDrip(pause)) = self.fault {
            for byte in std::mem::take(&mut self.buffer) {
                self.send(vec![byte]).await?;
                tokio::time::sleep(pause).await;
            }
        }
        while self.buffer.len() > LARGEST_MESSAGE {
            let rest = self.buffer.split_off(LARGEST_MESSAGE);
            let message = std::mem::replace(&mut self.buffer, rest);
            self.send(message).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), russh::Error> {
        match std::mem::take(&mut self.buffer) {
            empty if empty.is_empty() => Ok(()),
            message => self.send(message).await,
        }
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), russh::Error> {
        let mut message = VecDeque::from(message);
        while !self.lost && !message.is_empty() {
            let room = match self.fault {
                Some(Fault::LoseTail | Fault::LoseTailFar) => {
                    self.channel.writable_packet_size().await
                }
                _ => message.len(),
            };
            let part: Vec<u8> = message.drain(..room.min(message.len())).collect();
            if part.is_empty() {
                self.lost = true;
                break;
            }
            self.router.count(|counters| counters.sent(part.len()));
            self.channel.data_bytes(part).await?;
        }
        Ok(())
    }
}

impl Shared {
    /// The export that is due now.
    fn export(&self, secrets: bool, fault: Option<Fault>) -> Export {
        let number = self.exports.fetch_add(1, Ordering::Relaxed);
        let mut configuration = self.configuration();
        if let Some(Fault::Size(bytes)) = fault {
            configuration.size_bytes = bytes;
        }
        configuration.export(super::Rendering {
            now: self.clock.now(),
            secrets: secrets && fault != Some(Fault::SecretsWithheld),
            number,
            menu_timeout: fault == Some(Fault::MenuTimeout),
        })
    }
}
