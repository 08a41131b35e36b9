//! What OpenBao's answer means: this ciphertext, everybody, or the token.

/// A request that did not bring a plaintext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It says something about this ciphertext or this key: asking again changes nothing.
    Refused(String),
    /// It says nothing about the device: later it may work, for all.
    Away(String),
    /// The token, or its policy: the server says no more than that.
    Forbidden,
    /// No connection came about: worth another try at once.
    NoConnection(String),
}

/// As much of the server's words as is repeated.
const WORDS: usize = 200;

/// Reads an HTTP status that is no success, with the server's words.
///
/// 400 and 422 are about the request: not base64, no such key, a key version that is too old, and
/// since Vault 1.7 a failed authentication of the ciphertext, which before was a 500
/// (<https://github.com/hashicorp/vault/issues/10842>). 403 is a token that is not accepted as
/// well as a policy that does not allow it. Everything else (404 not mounted, 429 over its quota,
/// 472 and 473 a standby, 503 sealed, 500 and 502 and 504 not well) is the same for every device.
pub(super) fn fault(status: u16, words: &[String]) -> Fault {
    let said = said(words);
    match status {
        400 | 422 => Fault::Refused(said),
        500 if said.contains("message authentication failed") => Fault::Refused(said),
        403 => Fault::Forbidden,
        404 => Fault::Away(format!(
            "HTTP 404 ({said}): is the Transit engine mounted at transit/?"
        )),
        429 => Fault::Away(format!("HTTP 429 ({said}): its rate limit is reached")),
        503 => Fault::Away(format!("HTTP 503 ({said}): is it sealed?")),
        _ => Fault::Away(format!("HTTP {status} ({said})")),
    }
}

/// The server's words in one line.
fn said(words: &[String]) -> String {
    let words = words.join("; ");
    let words: Vec<_> = words.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(WORDS).collect();
    if line.is_empty() {
        return "no reason given".to_owned();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, words: &str) -> Fault {
        fault(status, &[words.to_owned()])
    }

    #[test]
    fn one_bad_ciphertext_is_no_outage_and_an_outage_is_no_bad_ciphertext() {
        for (status, words) in [
            (400, "invalid ciphertext: no prefix"),
            (400, "encryption key not found"),
            (400, "cipher: message authentication failed"),
            (
                500,
                "1 error occurred:\n\t* cipher: message authentication failed\n\n",
            ),
            (422, "no"),
        ] {
            assert!(matches!(of(status, words), Fault::Refused(_)), "{words}");
        }
        for (status, words) in [
            (404, "no handler for route \"transit/decrypt/x\""),
            (429, "request path: rate limit quota exceeded"),
            (472, ""),
            (473, ""),
            (500, "internal error"),
            (502, "bad gateway"),
            (503, "Vault is sealed"),
        ] {
            let Fault::Away(reason) = of(status, words) else {
                panic!("{status}");
            };
            assert!(reason.contains(&status.to_string()), "{reason}");
        }
        assert_eq!(of(403, "permission denied"), Fault::Forbidden);
    }

    #[test]
    fn the_servers_words_are_one_short_line() {
        let Fault::Refused(said) = of(400, &"many\n\twords ".repeat(1000)) else {
            panic!("refused");
        };
        assert!(said.len() <= WORDS && !said.contains('\n'), "{said}");
        assert_eq!(fault(400, &[]), Fault::Refused("no reason given".into()));
    }
}
