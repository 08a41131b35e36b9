//! A private certificate authority, and a front that speaks TLS with a certificate of its own for a
//! server that does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::process::require;

/// An authority that nobody knows, and what it vouches for.
pub struct Authority {
    openssl: PathBuf,
    directory: TempDir,
}

/// A TLS port of its own; it ends when this is dropped.
pub struct Front {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Authority {
    /// `None` when openssl is not installed.
    pub fn new() -> Option<Self> {
        let authority = Self {
            openssl: require("openssl")?,
            directory: tempfile::tempdir().expect("a directory"),
        };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=Test Authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        authority.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        ]);
        let names = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
        std::fs::write(authority.path("names"), names).expect("write a file");
        authority.openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ]);
        Some(authority)
    }

    /// The authority's own certificate, as PEM.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Listens on 127.0.0.1 and passes what comes to `upstream`.
    pub async fn front(&self, upstream: SocketAddr) -> Front {
        let certificate = CertificateDer::from_pem_file(self.path("server.pem"));
        let key = PrivateKeyDer::from_pem_file(self.path("server.key"));
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("a certificate")],
                key.expect("a key"),
            )
            .expect("they fit each other");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("listen");
        let address = listener.local_addr().expect("its address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, acceptor, upstream));
        Front {
            address,
            _tasks: tasks,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, words: &[&str]) {
        let directory: &Path = self.directory.path();
        let mut command = Command::new(&self.openssl);
        let output = command.current_dir(directory).args(words).output();
        let output = output.expect("run openssl");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Front {
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, upstream: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not trust us says so, and goes.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
