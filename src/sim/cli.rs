//! `mikrotik-backup simulate`: a fleet to try a cluster with, and its inventory.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Fault, Fleet, FleetOptions, HostKeyKind, PASSWORD, Router, SshProfile, USERNAME};
use crate::clock::Clock;

/// Seals the JSON of a credential for `devices.encrypted_credentials`.
pub type Seal<'a> = &'a (dyn Fn(&str) -> Vec<u8> + Send + Sync);

/// Simulate MikroTik routers on loopback addresses, until interrupted.
///
/// They speak SSH, answer `/export` as RouterOS 6 or 7 does, and can be told to misbehave. Nothing
/// that they hold is real. Over SSH they take a few commands that change them: `/system identity
/// set name=…`, `/system note set note=…` and `/ip ssh regenerate-host-key`.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// How many routers. Each takes an address of its own and a file descriptor.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub routers: usize,
    /// Size of each export in KiB, up to 102400; 0 for the smallest, about 3 KiB.
    #[arg(long, value_name = "KB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=102_400))]
    pub size: u64,
    /// Milliseconds that each router thinks before the first byte of an answer.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub delay: u64,
    /// RouterOS versions, dealt to the routers in turn.
    #[arg(
        long,
        value_name = "VERSION",
        value_delimiter = ',',
        default_value = "7.16.2"
    )]
    pub versions: Vec<String>,
    /// Address of the first router; the others count up from it. On Linux all of 127.0.0.0/8 can
    /// be used, elsewhere often 127.0.0.1 alone.
    #[arg(long, value_name = "IP", default_value = "127.1.0.1")]
    pub base_address: Ipv4Addr,
    /// TCP port of every router; 0 takes a free one for each.
    #[arg(long, default_value_t = 2222)]
    pub port: u16,
    /// Host keys, ids and configurations follow from it: the same seed gives the same fleet.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The SSH algorithms that the routers offer.
    #[arg(long, value_enum, default_value_t)]
    pub profile: SshProfile,
    /// The type of their host keys; the profiles of RouterOS 6 always have RSA.
    #[arg(long, value_enum, default_value_t)]
    pub host_key: HostKeyKind,
    /// Login name of every router.
    #[arg(long, default_value = USERNAME)]
    pub username: String,
    /// Password of every router. Not a secret: choose none that is used elsewhere.
    #[arg(long, default_value = PASSWORD)]
    pub password: String,
    /// A fault for one router: the first one named is the first router's, the second the second's,
    /// and so on. A name that does not exist prints the list.
    #[arg(long = "fault", value_name = "FAULT[=ARG]")]
    pub faults: Vec<Fault>,
    /// Edit the configuration of one router, in turn, every so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub change_every: Option<u64>,
    /// Write the inventory of the fleet in this form before it is left running.
    #[arg(long, value_enum)]
    pub inventory: Option<InventoryForm>,
    /// Where the inventory goes, instead of standard output.
    #[arg(long, value_name = "FILE", requires = "inventory")]
    pub inventory_file: Option<PathBuf>,
    /// The tenant that the inventory says owns the routers.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "00000000-0000-4000-8000-000000000001"
    )]
    pub tenant: Uuid,
    /// Write the inventory and exit at once.
    #[arg(long, requires = "inventory")]
    pub inventory_only: bool,
}

/// A form of the inventory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum InventoryForm {
    /// `INSERT INTO devices`, with the credentials sealed with `CREDENTIAL_ENCRYPTION_KEY`.
    /// Running it again repairs the rows.
    Sql,
    /// One line per router under a header line, with the password in clear.
    Csv,
}

impl SimulateArgs {
    /// The fleet that is asked for.
    pub fn options(&self) -> FleetOptions {
        FleetOptions {
            routers: self.routers,
            size_bytes: self.size * 1024,
            delay: Duration::from_millis(self.delay),
            versions: self.versions.clone(),
            base_address: self.base_address,
            port: self.port,
            seed: self.seed,
            clock: Clock::System,
            username: self.username.clone(),
            password: self.password.clone(),
            authorized_key: None,
            profile: self.profile,
            host_key: self.host_key,
        }
    }
}

/// Runs the subcommand until `shutdown`. `seal` is needed for the SQL inventory.
///
/// # Errors
/// The fleet cannot start, or the inventory cannot be written.
pub async fn run(
    args: SimulateArgs,
    seal: Option<Seal<'_>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let fleet = Fleet::start(args.options()).await?;
    for (router, fault) in fleet.routers().iter().zip(&args.faults) {
        router.set_fault(*fault);
    }
    if let Some(form) = args.inventory {
        let text = inventory(&fleet, &args, form, seal)?;
        write_inventory(&text, args.inventory_file.as_deref())?;
        if args.inventory_only {
            return Ok(());
        }
    }
    eprintln!("{}", describe(&fleet, &args));
    match args.change_every {
        Some(seconds) => {
            let change = change(fleet.routers(), Duration::from_secs(seconds));
            tokio::select! { () = shutdown.cancelled() => {} () = change => {} }
        }
        None => shutdown.cancelled().await,
    }
    let stats = fleet.stats();
    eprintln!(
        "simulated fleet stopped: {} whole exports over {} connections, at most {} at once",
        stats.exports_whole, stats.connections, stats.max_open_connections
    );
    Ok(())
}

/// Edits one router after the other. Ends only when it is dropped.
async fn change(routers: &[Router], every: Duration) {
    for (number, router) in routers.iter().cycle().enumerate() {
        tokio::time::sleep(every).await;
        router.change(|configuration| {
            configuration.add_firewall_rule(format!("change {}", number + 1));
        });
    }
    // No routers, no changes.
    std::future::pending::<()>().await;
}

/// One line about a running fleet.
fn describe(fleet: &Fleet, args: &SimulateArgs) -> String {
    let (Some(first), Some(last)) = (fleet.routers().first(), fleet.routers().last()) else {
        return "no simulated routers".to_owned();
    };
    let (first, last) = (first.address(), last.address());
    let count = fleet.routers().len();
    let versions = args.versions.join(", ");
    let user = &args.username;
    let routers = match count {
        1 => format!("a simulated router on {first}"),
        _ => format!("{count} simulated routers on {first} to {last}"),
    };
    format!("{routers}, RouterOS {versions}, login {user}")
}

/// The inventory of `fleet` as text.
///
/// # Errors
/// SQL is asked for and there is no `seal`.
pub fn inventory(
    fleet: &Fleet,
    args: &SimulateArgs,
    form: InventoryForm,
    seal: Option<Seal<'_>>,
) -> anyhow::Result<String> {
    match form {
        InventoryForm::Csv => Ok(csv(fleet)),
        InventoryForm::Sql => {
            let seal = seal.context(
                "the SQL inventory holds sealed credentials; set CREDENTIAL_ENCRYPTION_KEY, or use \
                 --inventory csv",
            )?;
            Ok(sql(fleet, args, seal))
        }
    }
}

fn csv(fleet: &Fleet) -> String {
    let mut text = String::from("hostname,ip_address,ssh_port,username,password\n");
    for router in fleet.routers() {
        let address = router.address();
        let fields = [
            router.name().to_owned(),
            address.ip().to_string(),
            address.port().to_string(),
            router.username(),
            router.password(),
        ];
        text.push_str(&fields.map(|field| csv_field(&field)).join(","));
        text.push('\n');
    }
    text
}

/// RFC 4180, section 2.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn sql(fleet: &Fleet, args: &SimulateArgs, seal: Seal<'_>) -> String {
    let mut rows = Vec::with_capacity(fleet.routers().len());
    for (index, router) in fleet.routers().iter().enumerate() {
        let credential = serde_json::json!({
            "username": router.username(),
            "password": router.password(),
        });
        rows.push(format!(
            "  ('{}', '{}', '{}', '{}', {}, 'routeros', '\\x{}')",
            device_id(args.seed, index),
            args.tenant,
            router.name(),
            router.address().ip(),
            router.address().port(),
            hex::encode(seal(&credential.to_string())),
        ));
    }
    let mut text = String::new();
    for batch in rows.chunks(1000) {
        let _ = write!(
            text,
            "INSERT INTO devices (id, tenant_id, hostname, ip_address, ssh_port, device_type, \
             encrypted_credentials) VALUES\n{}\nON CONFLICT (id) DO UPDATE SET\n  \
             hostname = excluded.hostname, ip_address = excluded.ip_address,\n  \
             ssh_port = excluded.ssh_port, encrypted_credentials = excluded.encrypted_credentials;\n",
            batch.join(",\n")
        );
    }
    text
}

/// The id of a router in the inventory: the same for the same seed.
fn device_id(seed: u64, index: usize) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"id of a simulated router");
    hash.update(seed.to_be_bytes());
    hash.update((index as u64).to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn write_inventory(text: &str, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(path) => std::fs::write(path, text)
            .with_context(|| format!("failed to write the inventory to {}", path.display())),
        None => {
            let mut out = std::io::stdout().lock();
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // A reader that went away (`| head`) has what it wanted.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                written => written.context("failed to write the inventory to standard output"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn args(line: &str) -> SimulateArgs {
        Program::parse_from(format!("simulate {line}").split_whitespace()).args
    }

    #[test]
    fn arguments_become_options() {
        let args = args(
            "--routers 3 --size 64 --delay 200 --versions 7.16,6.49.18 --profile v6 --fault cut --fault slow_drip=5",
        );
        let options = args.options();
        assert_eq!(
            (options.routers, options.size_bytes, options.delay),
            (3, 65_536, Duration::from_millis(200))
        );
        assert_eq!(options.versions, ["7.16", "6.49.18"]);
        assert_eq!(
            args.faults,
            [Fault::Cut, Fault::SlowDrip(Duration::from_millis(5))]
        );
    }

    #[tokio::test]
    async fn the_inventory_has_a_row_for_every_router() {
        let args = args("--routers 3 --port 0 --base-address 127.9.0.1 --password a,\"b");
        let fleet = Fleet::start(args.options()).await.expect("start a fleet");
        let addresses: Vec<_> = fleet.routers().iter().map(Router::address).collect();

        let csv = inventory(&fleet, &args, InventoryForm::Csv, None).expect("no seal needed");
        let second = format!(
            "sim-0002,127.9.0.2,{},backup,\"a,\"\"b\"",
            addresses[1].port()
        );
        assert_eq!(csv.lines().nth(2), Some(second.as_str()));
        assert_eq!(csv.lines().count(), 4);

        let missing = inventory(&fleet, &args, InventoryForm::Sql, None).expect_err("no seal");
        assert!(missing.to_string().contains("CREDENTIAL_ENCRYPTION_KEY"));
        let seal = |json: &str| {
            assert_eq!(json, r#"{"password":"a,\"b","username":"backup"}"#);
            vec![0xC0, 0xDE]
        };
        let sql = inventory(&fleet, &args, InventoryForm::Sql, Some(&seal)).expect("sealed");
        for (index, address) in addresses.iter().enumerate() {
            let row = format!(
                "'sim-000{}', '{}', {}, 'routeros', '\\xc0de')",
                index + 1,
                address.ip(),
                address.port()
            );
            assert!(sql.contains(&row), "{row} is not in {sql}");
        }
        assert_ne!(device_id(1, 0), device_id(1, 1));
        assert_ne!(device_id(1, 0), device_id(2, 0));
    }

    #[tokio::test]
    async fn runs_until_it_is_told_to_stop() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("routers.csv");
        let line = "--routers 2 --port 0 --base-address 127.9.1.1 --fault refuse --inventory csv";
        let mut args = args(line);
        args.inventory_file = Some(file.clone());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(args.clone(), None, shutdown.clone()));
        let second = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(row) = text.lines().nth(2) {
                let port = row.split(',').nth(2).and_then(|port| port.parse().ok());
                break port.expect("a port");
            }
            assert!(!running.is_finished(), "it ended by itself");
            tokio::task::yield_now().await;
        };
        let second: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 9, 1, 2), second);
        let stream = tokio::net::TcpStream::connect(second).await;
        drop(stream.expect("the second router listens"));
        shutdown.cancel();
        let ended = running.await.expect("no panic");
        ended.expect("no error");
        let error = tokio::net::TcpStream::connect(second).await;
        error.expect_err("nobody listens any more");

        args.inventory_file = None;
        args.inventory = None;
        args.base_address = Ipv4Addr::new(192, 0, 2, 1);
        let error = run(args, None, shutdown).await.expect_err("not loopback");
        assert!(error.to_string().contains("127.0.0.0/8"), "{error}");
    }
}
