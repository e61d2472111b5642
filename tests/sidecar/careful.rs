//! Crash loops end: which deaths have which event parked.

use sluice::careful::Careful;

/// A death: what was under way.
enum Life {
    Dies(&'static str),
    Ends,
}
use Life::{Dies, Ends};

#[test]
fn an_event_is_parked_after_two_deaths_in_a_row_that_were_watched() {
    // Lives, and what the next one parks of `a`, `b`.
    let rows: [(&str, &[Life], &[&str]); 7] = [
        ("a clean life", &[Ends, Ends, Ends], &[]),
        ("too few deaths", &[Dies("a"), Dies("a")], &[]),
        ("watched once", &[Dies("a"), Dies("a"), Dies("a")], &[]),
        ("watched twice", &[Dies("a"), Dies("a"), Dies("a"), Dies("a")], &["a"]),
        ("progress between", &[Dies("a"), Dies("a"), Dies("a"), Dies("b"), Dies("a")], &[]),
        ("nothing under way", &[Dies(""), Dies(""), Dies(""), Dies("")], &[]),
        ("a second one later", &[Dies("a"), Dies("a"), Dies("a"), Dies("a"), Dies("b"), Dies("b")], &["a", "b"]),
    ];
    for (name, lives, parked) in rows {
        let dir = tempfile::tempdir().expect("a folder");
        for life in lives {
            let careful = Careful::begin(dir.path(), 2).expect("a start");
            match life {
                Ends => Careful::end(dir.path()).expect("an end"),
                Dies(position) => {
                    if let Some(careful) = careful {
                        careful.is_parked(0, "before");
                        careful.idle(0);
                        careful.is_parked(1, position);
                    }
                }
            }
        }
        let careful = Careful::begin(dir.path(), 2).expect("a start");
        for position in ["a", "b"] {
            let found = careful.as_ref().is_some_and(|careful| careful.is_parked(0, position));
            assert_eq!(found, parked.contains(&position), "{name}: {position}");
        }
    }
}
