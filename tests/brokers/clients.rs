//! The clients that people have: boto3, the AWS SDK for JavaScript and the aws command, against a running process.

use crate::ports::free_port;
use crate::process::Sluice;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

pub fn all() {
    let listen = format!("127.0.0.1:{}", free_port());
    let sluice = Sluice::new(&format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\" }}\nbuses: {{ Orders: {{}} }}\n\
         targets: {{ log: {{ log: {{ group: orders }} }} }}\n\
         rules: {{ all: {{ bus: Orders, pattern: {{ source: [{{ exists: true }}] }}, targets: [log] }} }}\n"
    ));
    let mut running = sluice.start(&[]);
    running
        .until("it is ready", Duration::from_secs(20), |it| it.get("/readyz").is_some_and(|(s, _)| s.contains("200")));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    let output = Command::new("bash").args([script, "run", &format!("http://{listen}")]).output().expect("bash");
    let printed = String::from_utf8(output.stdout).expect("text");
    print!("{printed}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(said.len(), 3, "three clients");
    let ids = |name: &str| -> BTreeSet<String> {
        let all = said.iter().flat_map(|client| client[name].as_array().expect("a list"));
        all.map(|id| id.as_str().expect("text").to_owned()).collect()
    };
    let routed: Vec<Value> =
        sluice.lines("logs/orders").iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |get: fn(&Value) -> &Value| -> BTreeSet<String> {
        routed.iter().map(|event| get(event).as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(of(|event| &event["detail"]["id"]), ids("ids"), "what was accepted was routed, and nothing else");
    assert_eq!(of(|event| &event["id"]), ids("event_ids"), "under the ids that the clients were told");
    assert_eq!(routed.len(), ids("ids").len(), "once");
    running.stop();
    signed();
}

/// The same clients where signatures are verified, with the right key, and with others.
fn signed() {
    let listen = format!("127.0.0.1:{}", free_port());
    let (id, secret) = ("AKIDCLIENTS", "cl1entsXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE");
    let sluice = Sluice::new(&format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\", auth: {{ keys: keys.yaml }} }}\n\
         buses: {{ Orders: {{}} }}\n"
    ));
    let keys =
        format!("keys:\n  - {{ access_key_id: {id}, secret_access_key: \"{secret}\", account: \"000000000000\" }}\n");
    sluice.write("keys.yaml", &keys);
    let owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(sluice.path().join("keys.yaml"), owner).expect("a mode");
    let mut running = sluice.start(&[]);
    running
        .until("it is ready", Duration::from_secs(20), |it| it.get("/readyz").is_some_and(|(s, _)| s.contains("200")));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    for client in ["keys.py", "boto3.py", "sdk.mjs", "cli.sh"] {
        let mut command = Command::new("bash");
        command.args([script, "run", &format!("http://{listen}"), client]);
        let output = command.env("SLUICE_CLIENT_ID", id).env("SLUICE_CLIENT_SECRET", secret).output().expect("bash");
        print!("signed: {}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
    }
    running.stop();
}
