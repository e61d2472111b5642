//! Certificates made for a test, and an HTTPS server that uses them.

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An authority, with a certificate for 127.0.0.1 that servers and clients use.
pub struct Authority {
    ca: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    cert: rcgen::Certificate,
    key: KeyPair,
}

/// Paths of PEM files.
pub struct Files {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let cert = leaf().signed_by(&key, &issuer).expect("a certificate");
        Self { ca, issuer, cert, key }
    }

    /// A certificate that was valid once.
    pub fn expired(&self, folder: &Path) -> Files {
        let mut params = leaf();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(folder, &params)
    }

    /// A certificate of somebody else.
    pub fn other_name(&self, folder: &Path) -> Files {
        let mut params = leaf();
        params.subject_alt_names = vec![SanType::DnsName("elsewhere.example".try_into().expect("a name"))];
        self.sign(folder, &params)
    }

    fn sign(&self, folder: &Path, params: &CertificateParams) -> Files {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        write(folder, &self.ca.pem(), &cert.pem(), &key.serialize_pem())
    }

    pub fn write(&self, folder: &Path) -> Files {
        write(folder, &self.ca.pem(), &self.cert.pem(), &self.key.serialize_pem())
    }
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "sluice");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn write(folder: &Path, ca: &str, cert: &str, key: &str) -> Files {
    std::fs::create_dir_all(folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    Files { ca: file("ca.pem", ca), cert: file("cert.pem", cert), key: file("key.pem", key) }
}

/// A running HTTPS server that answers everything with 200.
pub struct Https {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Https {
    /// The HTTP versions of the requests.
    pub fn versions(&self) -> Vec<String> {
        self.seen.lock().expect("a lock").clone()
    }
}

/// Serves HTTP/1.1 and HTTP/2 over TLS; `mutual` wants the client's certificate.
pub fn serve(authority: &Authority, mutual: bool) -> Https {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match mutual {
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.ca.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
        false => builder.with_no_client_auth(),
    };
    let cert: CertificateDer<'static> = authority.cert.der().clone();
    let key = PrivateKeyDer::try_from(authority.key.serialize_der()).expect("a key");
    let mut config = builder.with_single_cert(vec![cert], key).expect("a server");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    answer("https", move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.ok() }
    })
}

/// Listens with a certificate, and counts the bytes that come after a handshake: the address's port, and the count.
pub fn listen(files: &Files) -> (u16, Arc<AtomicUsize>) {
    let pem = |path: &str| std::fs::read(path).expect("a file");
    let cert = CertificateDer::from_pem_slice(&pem(&files.cert)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&pem(&files.key)).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(vec![cert], key).expect("a server");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (port, bytes) = (listener.local_addr().expect("an address").port(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&bytes);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, count) = (Arc::clone(&config), Arc::clone(&count));
            std::thread::spawn(move || {
                let session = rustls::ServerConnection::new(config).expect("a session");
                let mut stream = rustls::StreamOwned::new(session, stream);
                let mut some = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut some) {
                    count.fetch_add(read, Ordering::Relaxed);
                }
            });
        }
    });
    (port, bytes)
}

/// Serves HTTP/1.1 and HTTP/2 without TLS.
pub fn serve_plain() -> Https {
    answer("http", |stream| async { Some(stream) })
}

fn answer<S, F>(scheme: &str, open: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Https
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<S>> + Send + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let url = format!("{scheme}://{}/hook", listener.local_addr().expect("an address"));
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (opened, noted) = (open(stream), Arc::clone(&noted));
            tokio::spawn(async move {
                let Some(stream) = opened.await else { return };
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    noted.lock().expect("a lock").push(format!("{:?}", request.version()));
                    async { Ok::<_, std::convert::Infallible>(hyper::Response::new(String::new())) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                server.serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    Https { url, seen, _runtime: runtime }
}
