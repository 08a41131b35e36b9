//! From `DATABASE_URL` to connection options, without repeating a secret.

use std::borrow::Cow;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tracing::warn;
use url::Url;

/// The parameters that the driver understands; it prints the value of any other, which may be a
/// misspelt password.
const KNOWN_PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// `NAMEDATALEN - 1`: PostgreSQL cuts longer application names.
/// <https://www.postgresql.org/docs/current/runtime-config-logging.html#GUC-APPLICATION-NAME>
const MAX_APPLICATION_NAME: usize = 63;

/// `DATABASE_URL` cannot be used. The text never repeats it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "DATABASE_URL is not a usable PostgreSQL URL ({problem}); expected postgres://user:password@host:5432/database"
)]
pub struct InvalidUrl {
    problem: Cow<'static, str>,
}

/// Reads `url`; the connections introduce themselves as `mikrotik-backup/<replica>`.
pub(super) fn options(url: &SecretString, replica: &str) -> Result<PgConnectOptions, InvalidUrl> {
    let invalid = |problem: Cow<'static, str>| InvalidUrl { problem };
    // The parser's texts name the problem and not the input.
    let mut url =
        Url::parse(url.expose_secret()).map_err(|error| invalid(error.to_string().into()))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(invalid("the scheme is not postgres".into()));
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        url.query_pairs().into_owned().partition(|(key, _)| {
            KNOWN_PARAMETERS.contains(&key.as_str()) || key.starts_with("options[")
        });
    for (key, _) in unknown.iter().filter(|(key, _)| key != "application_name") {
        warn!(parameter = %key, "Ignoring a parameter of DATABASE_URL that is not known");
    }
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    let options = PgConnectOptions::from_str(url.as_str()).map_err(|_| {
        // The driver's text may quote the value it stumbled over.
        invalid("one of host, port, sslmode or the other parameters does not parse".into())
    })?;
    Ok(options.application_name(&application_name(replica)))
}

/// Migration 0003 and operators recognise the service by this name.
fn application_name(replica: &str) -> String {
    let mut name =
        format!("mikrotik-backup/{replica}").replace(|c: char| !c.is_ascii_graphic(), "?");
    name.truncate(MAX_APPLICATION_NAME);
    name
}

/// Where the server is, for messages.
pub(super) fn server(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(directory) => directory.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<PgConnectOptions, InvalidUrl> {
        options(&SecretString::from(url), "replica-1")
    }

    #[test]
    fn url_names_server_and_the_service_names_itself() {
        let options =
            read("postgres://u:p@192.0.2.5:5433/fleet?application_name=other&sslmode=disable")
                .expect("a valid URL");
        assert_eq!(server(&options), "192.0.2.5:5433");
        assert_eq!(options.get_database(), Some("fleet"));
        assert_eq!(
            options.get_application_name(),
            Some("mikrotik-backup/replica-1")
        );
        let options = read("postgresql://u@%2Frun%2Fpg/fleet").expect("a socket directory");
        assert_eq!(server(&options), "/run/pg");
    }

    #[test]
    fn application_name_fits_and_is_ascii() {
        let name = application_name(&"\u{e9} \n".repeat(60));
        assert_eq!(name.len(), MAX_APPLICATION_NAME);
        assert!(name.chars().all(|c| c.is_ascii_graphic()), "{name}");
    }

    #[test]
    fn no_error_repeats_the_url() {
        for bad in [
            "recognisable-secret",
            "mysql://u:recognisable-secret@192.0.2.5/fleet",
            "postgres://u:recognisable-secret@192.0.2.5:99999/fleet",
            "postgres://u@192.0.2.5/fleet?sslmode=recognisable-secret",
            "postgres://u@192.0.2.5/fleet?port=recognisable-secret",
        ] {
            let error = read(bad).expect_err(bad);
            assert!(
                !format!("{error} {error:?}").contains("recognisable-secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_parameters_never_reach_the_driver() {
        let options =
            read("postgres://u@192.0.2.5/fleet?pasword=recognisable-secret&connect_timeout=3");
        let options = options.expect("unknown parameters are ignored");
        assert!(!format!("{options:?}").contains("recognisable-secret"));
    }
}
