//! Failed authentications: how many are listened to, and that they tell nothing by the time they take.

use crate::access::{BOB, answer, keys};
use crate::endpoint::Endpoint;
use crate::process::exchange;
use crate::signed::{ID, SECRET, Signed, now};
use serde_json::json;
use sluice::api::Failures;
use sluice::api::sigv4::{Claim, Keys};
use std::net::IpAddr;

/// Who fails too often within a minute is not listened to until it is over, right or wrong; others are.
#[test]
fn failures_of_an_address_are_bounded() {
    let (failures, four): (Failures, IpAddr) = (Failures::new(3), "192.0.2.1".parse().expect("an address"));
    // An address, the time, whether it fails then, and whether it is listened to.
    let rows: [(&str, i64, bool, bool); 14] = [
        ("192.0.2.1", 100, true, true),
        ("192.0.2.1", 110, true, true),
        ("::ffff:192.0.2.1", 120, true, true),
        ("192.0.2.1", 120, false, false),
        ("192.0.2.2", 120, false, true),
        ("192.0.2.1", 159, false, false),
        ("192.0.2.1", 160, true, true),
        ("192.0.2.1", 161, false, true),
        ("2001:db8::1", 200, true, true),
        ("2001:db8::2", 200, true, true),
        ("2001:db8::3", 200, true, true),
        ("2001:db8::4", 200, false, false),
        ("2001:db8:0:1::4", 200, false, true),
        // The clock was put back.
        ("2001:db8::4", 10, false, true),
    ];
    for (peer, now, fails, admitted) in rows {
        let peer = peer.parse().expect("an address");
        assert_eq!(failures.admit(peer, now).is_ok(), admitted, "{peer} at {now}");
        if fails {
            failures.note(peer, now);
        }
    }
    for n in 0..20_000u32 {
        failures.note(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 1000);
    }
    (0..3).for_each(|_| failures.note(four, 1001));
    failures.note(IpAddr::from([198, 51, 100, 1]), 1002);
    assert!(failures.addresses() <= 4096, "{}", failures.addresses());
    assert!(failures.admit(four, 1001).is_err(), "what began first is forgotten first");

    let endpoint = Endpoint::start_beside(
        &[("keys.yaml", &keys())],
        ", auth: { keys: keys.yaml, bearer: [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa], failures_per_minute: 5 }",
        "",
    );
    let request = || Signed::new(&endpoint.listen, "ListRules", b"{}");
    assert_eq!(answer(&endpoint, &request()).0, 200);
    for wrong in [request().by("AKIDNOBODY", SECRET), request().by(ID, BOB.1), request().dated(now() - 900)] {
        assert_ne!(answer(&endpoint, &wrong).1["__type"], "ThrottlingException");
    }
    let cloud = |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Content-Type", "application/cloudevents+json"), ("Authorization", bearer.as_str())];
        exchange(&endpoint.listen, "POST /events/default", &headers, b"{}").expect("an answer").0
    };
    assert_eq!([cloud("x"), cloud("y"), cloud("z")], [401, 401, 429]);
    let (status, said) = answer(&endpoint, &request());
    assert_eq!((status, &said["__type"]), (400, &json!("ThrottlingException")), "{said}");
    assert_eq!(cloud("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 429);
    endpoint.stop();
}

/// An id that nobody has takes as long to refuse as a wrong signature of one that somebody has.
#[test]
fn unknown_keys_take_as_long_as_known_ones() {
    let key = json!({ "access_key_id": ID, "secret_access_key": SECRET, "account": "111111111111" });
    let (keys, at) = (Keys::new(&[serde_json::from_value(key).expect("a key")]), now());
    let body = vec![b' '; 2000];
    let request = |id: &str| {
        let signed = Signed::new("localhost", "PutEvents", &body).by(id, "another");
        let builder = axum::http::Request::builder().method("POST").uri("/");
        let builder = signed.head().into_iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        let head = builder.body(()).expect("a request").into_parts().0;
        let claim = Claim::read(&head).map_err(|error| error.to_string()).expect("a claim");
        (claim, head)
    };
    let both = [request(ID), request("AKIDNOONE")];
    let mut ratios = Vec::new();
    for _ in 0..9 {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..500 {
            for (took, (claim, head)) in took.iter_mut().zip(&both) {
                let begun = std::time::Instant::now();
                assert!(keys.verify(claim, head, &body, at).is_err());
                took.push(begun.elapsed());
            }
        }
        let [known, unknown] = took.map(|mut took| {
            took.sort();
            took[took.len() / 2].as_secs_f64()
        });
        ratios.push(unknown / known);
    }
    ratios.sort_by(f64::total_cmp);
    eprintln!("an unknown key takes {:.3} of the time of a known one", ratios[4]);
    assert!((0.75..1.25).contains(&ratios[4]), "{ratios:?}");
}
