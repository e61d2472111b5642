//! Reading JSON: what is refused, where, and how deep.

use sluice::event::{FaultKind, MAX_DEPTH, Tree, number};

#[test]
fn faults_are_found_where_they_are() {
    let check = |text: &[u8], kind: FaultKind, at: usize| {
        let fault = Tree::parse(text).expect_err("an invalid text");
        assert_eq!((fault.kind, fault.at), (kind, at), "{}", String::from_utf8_lossy(text));
    };
    check(b"", FaultKind::Empty, 0);
    check(b"  ", FaultKind::Empty, 0);
    check(b"[1]", FaultKind::NotAnObject, 0);
    check(b"\xEF\xBB\xBF{}", FaultKind::ByteOrderMark, 0);
    check(b"{\"a\":1} x", FaultKind::Trailing, 8);
    check(b"{\"a\":01}", FaultKind::BadNumber, 5);
    check(b"{\"a\":+1}", FaultKind::Unexpected, 5);
    check(b"{\"a\":.5}", FaultKind::Unexpected, 5);
    check(b"{\"a\":1.}", FaultKind::BadNumber, 5);
    check(b"{\"a\":NaN}", FaultKind::BadWord, 5);
    check(b"{\"a\":tru e}", FaultKind::BadWord, 5);
    check(b"{\"a\" 1}", FaultKind::Unexpected, 5);
    check(b"{\"a\":1,}", FaultKind::Unexpected, 7);
    check(b"{a:1}", FaultKind::Unexpected, 1);
    check(b"{\"a\":[1,2}", FaultKind::Unexpected, 9);
    check(b"{\"a\":{\"b\":1}", FaultKind::Truncated, 12);
    check(b"{\"a\":\"x", FaultKind::BadString, 5);
    check(b"{\"a\":\"x\ny\"}", FaultKind::BadString, 7);
    check(b"{\"a\":\"\\x\"}", FaultKind::BadEscape, 6);
    check(b"{\"a\":\"\\u12g4\"}", FaultKind::BadEscape, 6);
    check(b"{\"a\":\"\xff\"}", FaultKind::Utf8, 6);
    check(b"{\"a\":\"x\"\"y\"}", FaultKind::Unexpected, 8);
    check(b"{\"a\":1 2}", FaultKind::Unexpected, 7);
}

#[test]
fn valid_texts_are_read() {
    let check = |text: &str| {
        Tree::parse(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    };
    check("{}");
    check(" { \"a\" : [ ] , \"b\" : { } } \n");
    check(r#"{"a":[1,-0,1e400,98765432109876543210,0.1e-7,true,false,null,"\ud800","\u0000"]}"#);
    check(r#"{"a":"x  " , "b" : "\"" }"#);
    let deep = |n: usize| format!("{}{}{}", "{\"a\":".repeat(n - 1), "{}", "}".repeat(n - 1));
    check(&deep(MAX_DEPTH));
    let fault = Tree::parse(deep(MAX_DEPTH + 1).as_bytes()).expect_err("too deep");
    assert_eq!(fault.kind, FaultKind::TooDeep);
    let hostile = "{\"a\":".repeat(100_000);
    assert_eq!(Tree::parse(hostile.as_bytes()).expect_err("too deep").kind, FaultKind::TooDeep);
}

#[test]
fn numbers_are_comparable_as_the_specification_says() {
    let check = |text: &str, value: Option<f64>| {
        assert_eq!(number::comparable(text.as_bytes()), value, "{text}");
    };
    check("300", Some(300.0));
    check("3.018e2", Some(301.8));
    check("123456789012", Some(123_456_789_012.0));
    check("1e300", Some(1e300));
    check("0.1", Some(0.1));
    check("-0", Some(0.0));
    check("0e9", Some(0.0));
    check("0e99999999999999999999", Some(0.0));
    check("9007199254740992", Some(9_007_199_254_740_992.0));
    check("9007199254740993", None);
    check("98765432109876543210", None);
    check("1e999", None);
    check("1e-999", None);
    check("0.1234567890123456789", None);
    check("5e-324", Some(5e-324));
    check("2e23", Some(2e23));
}
