//! F22: requests that callers of the API would have us make to machines of ours, by API destinations and for tokens.

use crate::destinations::{basic, done, letters, oauth, with};
use crate::endpoint::Endpoint;
use crate::ports::free_port;
use crate::process::{Place, free_address, until};
use crate::receiver::{Act, Receiver};
use serde_json::{Value, json};
use sluice::egress::Egress;
use std::net::TcpListener;

/// Addresses that are nobody's business but ours, in every spelling that URLs have for them.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0X7F.0.0.0x1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "0xa000001",
    "10.1",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.1",
    "3232235521",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:a00:1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:c0a8:1::1]",
    "[2001::1]",
    "[2001:0:7f00:1::80ff:fffe]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[100::1]",
    "[5f00::1]",
];

/// Addresses of the Internet.
const PUBLIC: &[&str] = &[
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.0.1",
    "198.20.0.1",
    "223.255.255.255",
    "[2606:4700::1111]",
    "[2001:4860:4860::8888]",
    "[2002:808:808::1]",
    "[64:ff9b::8.8.8.8]",
    "example.com",
];

#[test]
fn addresses_are_known_in_every_spelling() {
    let open = Egress::new(true, &[]).expect("a rule");
    let allowed = Egress::new(true, &["10.0.0.0/8".to_owned(), "::1".to_owned()]).expect("a rule");
    for host in HOSTS {
        for url in [format!("https://{host}/"), format!("http://{host}:8080/a"), format!("https://a@{host}:6379/?b")] {
            assert!(open.check_url(&url).is_err(), "{url}");
        }
    }
    for host in PUBLIC {
        assert_eq!(open.check_url(&format!("https://{host}/")), Ok(()), "{host}");
        let plain = open.check_url(&format!("http://{host}/"));
        assert!(*host == "example.com" || plain.is_err(), "{host} without TLS");
    }
    for host in ["10.0.0.1", "10.255.0.1", "0xa000001", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[::1]"] {
        assert_eq!(allowed.check_url(&format!("http://{host}/")), Ok(()), "{host} is allowed");
    }
    assert!(allowed.check_url("http://11.0.0.1/").is_err() && allowed.check_url("http://127.0.0.1/").is_err());
}

/// What callers would write to reach a port of this machine.
fn tricks(port: &str) -> Vec<String> {
    let mut urls: Vec<_> = HOSTS.iter().map(|host| format!("http://{host}:{port}/")).collect();
    for host in ["localhost", "LOCALHOST", "localhost.", "LocalHost.", "ip6-localhost"] {
        urls.extend(["http", "https"].map(|scheme| format!("{scheme}://{host}:{port}/")));
    }
    let more = [
        "http://example.com@127.0.0.1:PORT/",
        "http://example.com:80@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT@example.invalid/",
        "http://example.invalid\\@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT\\@example.invalid/",
        "http:127.0.0.1:PORT/",
        "http:///127.0.0.1:PORT/",
        "//127.0.0.1:PORT/",
        "127.0.0.1:PORT/",
        "localhost:PORT",
        "http://127.0.0.1%20:PORT/",
        "http://127.0.0.1%00.example.invalid:PORT/",
        "http://127.0.0.1%2f@example.invalid:PORT/",
        "http://[::1%25lo]:PORT/",
        "gopher://127.0.0.1:PORT/_GET",
        "file:///etc/passwd",
        "ftp://127.0.0.1:PORT/",
        "dict://127.0.0.1:PORT/info",
        "ws://127.0.0.1:PORT/",
        "unix:/var/run/docker.sock",
    ];
    urls.extend(more.map(|url| url.replace("PORT", port)));
    urls
}

/// A process that others reach on `admin`, but not at the front; one address of this machine is allowed.
fn reachable(proxy: &str) -> Endpoint {
    let listen = free_address();
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"0.0.0.0:{}\" }}\negress: {{ allow: [127.0.0.2] }}\n",
        free_port()
    );
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let environment: Vec<_> = names.iter().map(|name| (*name, proxy)).collect();
    let mut endpoint = Endpoint::launch(Place::new(&[("c.yaml", &config)]), listen, &environment);
    // It says more than a pipe holds.
    let mut log = endpoint.child.0.stderr.take().expect("a pipe");
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    endpoint
}

/// A rule that sends events of the source of its name to a URL; whether the service would take it.
fn make(endpoint: &Endpoint, name: &str, url: &str) -> bool {
    let (_, connection) = endpoint.call("DescribeConnection", &json!({ "Name": "basic" }));
    let members = json!({ "Name": name, "ConnectionArn": connection["ConnectionArn"], "HttpMethod": "POST",
        "InvocationEndpoint": url });
    let (status, said) = endpoint.call("CreateApiDestination", &members);
    if status != 200 {
        assert_eq!(said["__type"], "ValidationException", "{url}: {said}");
        return false;
    }
    done(endpoint, "PutRule", &json!({ "Name": name, "EventPattern": json!({ "source": [name] }).to_string() }));
    let once = json!({ "MaximumRetryAttempts": 0 });
    let target = json!({ "Id": "1", "Arn": said["ApiDestinationArn"], "RetryPolicy": once });
    done(endpoint, "PutTargets", &json!({ "Rule": name, "Targets": [target] }));
    true
}

fn put(endpoint: &Endpoint, name: &str) {
    let entry = json!({ "Source": name, "DetailType": "t", "Detail": "{}" });
    done(endpoint, "PutEvents", &json!({ "Entries": [entry] }));
}

fn port(receiver: &Receiver) -> &str {
    receiver.url.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port")
}

#[test]
fn nobody_is_led_to_this_machine() {
    // A trap where it all would lead; a proxy's variables lead there, too.
    let trap = Receiver::start(|_, _| Act::ok());
    let endpoint = reachable(&trap.url);
    done(&endpoint, "CreateConnection", &with(basic(json!({})), &json!({ "Name": "basic" })));
    let urls = tricks(port(&trap));
    let (mut sent, mut asked) = (Vec::new(), Vec::new());
    for (n, url) in urls.iter().enumerate() {
        let name = format!("trick-{n}");
        if make(&endpoint, &name, url) {
            put(&endpoint, &name);
            sent.push((name.clone(), url));
        }
        let connection = with(oauth(url, "POST", json!({})), &json!({ "Name": name }));
        let (status, said) = endpoint.call("CreateConnection", &connection);
        match status {
            200 => asked.push((name, url)),
            _ => assert_eq!(said["__type"], "ValidationException", "{url}: {said}"),
        }
    }
    assert!(sent.len() > 50 && asked.len() > 50, "{} and {} got past the model", sent.len(), asked.len());
    for (name, url) in sent {
        until(url, || !letters(&endpoint, &name).is_empty());
    }
    for (name, url) in asked {
        let state = || endpoint.call("DescribeConnection", &json!({ "Name": name })).1;
        until(url, || state()["ConnectionState"] == "DEAUTHORIZED");
        assert!(state()["StateReason"].is_string(), "{url}: {}", state());
    }
    assert_eq!(trap.count(), 0, "{:?}", trap.requests());
    endpoint.stop();
}

#[test]
fn redirects_are_not_followed() {
    let trap = Receiver::start(|_, _| Act::ok());
    let endpoint = reachable(&trap.url);
    done(&endpoint, "CreateConnection", &with(basic(json!({})), &json!({ "Name": "basic" })));
    let statuses = [
        ("301 Moved Permanently", "r301"),
        ("302 Found", "r302"),
        ("303 See Other", "r303"),
        ("307 Temporary Redirect", "r307"),
        ("308 Permanent Redirect", "r308"),
    ];
    for (status, name) in statuses {
        let to = trap.url.clone();
        let listener = TcpListener::bind("127.0.0.2:0").expect("an address");
        let away = Receiver::on(listener, move |_, _| Act::Answer(status, vec![("location", to.clone())], ""));
        assert!(make(&endpoint, name, &away.url), "{}", away.url);
        put(&endpoint, name);
        until(status, || !letters(&endpoint, name).is_empty());
        assert_eq!(away.count(), 1, "the address itself is allowed");
        done(&endpoint, "CreateConnection", &with(oauth(&away.url, "POST", json!({})), &json!({ "Name": name })));
        let state = || endpoint.call("DescribeConnection", &json!({ "Name": name })).1;
        until(status, || state()["ConnectionState"] == "DEAUTHORIZED");
        assert!(state()["StateReason"].as_str().is_some_and(|why| why.contains(&status[..3])), "{}", state());
    }
    assert_eq!(trap.count(), 0, "{:?}", trap.requests());
    // What is allowed gets there: a token, and with it an event.
    let listener = TcpListener::bind("127.0.0.2:0").expect("an address");
    let tokens = Receiver::on(listener, |_, _| Act::Answer("200 OK", vec![], "{\"access_token\":\"t\"}"));
    let update = with(oauth(&tokens.url, "POST", json!({})), &json!({ "Name": "basic" }));
    done(&endpoint, "UpdateConnection", &update);
    let listener = TcpListener::bind("127.0.0.2:0").expect("an address");
    let good = Receiver::on(listener, |_, _| Act::ok());
    assert!(make(&endpoint, "good", &good.url));
    put(&endpoint, "good");
    until("it comes", || good.count() == 1);
    assert_eq!(good.requests()[0].header("authorization"), Some("Bearer t"));
    assert_eq!(letters(&endpoint, "good"), Vec::<Value>::new());
    endpoint.stop();
}
