//! What identifies a record, with golden values: an id that changes is an event delivered twice.

use super::*;

const GENAUTH: &str = r#"{"userId":"62b1d0c2f6a3e45c9d8e7f01","userAvatar":"https://files.example/a.png","userDisplayName":"张三","userLoginsCount":17,"appId":"62b1d0c2f6a3e45c9d8e7f02","appName":"Console","appLoginUrl":"https://console.example/login","appLogo":"https://files.example/l.png","clientIp":"203.0.113.7","eventType":"login","eventDetail":"用户登录","success":true,"userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/105.0.0.0 Safari/537.36","parsedUserAgent":{"device":"Desktop","browser":"Chrome","os":"Windows"},"geoip":{"location":{"lon":116.4,"lat":39.9},"country_name":"China","country_code2":"CN","country_code3":"CHN","region_name":"Beijing","region_code":"BJ","city_name":"Beijing","continent_code":"AS","timezone":"Asia/Shanghai"},"timestamp":"2022-09-20T08:55:00.188+0800","requestId":"0d4a3b52-4d0c-4c67-9a58-3b8f8a3f5a11"}"#;

const SCLOUD: &str = r#"{"Region":"cn-bj2","Api":"CreateUHostInstance","IsSuccess":true,"OperateTime":1663635300,"UserName":"zhang","UserEmail":"zhang@example.com","RelatedResource":[{"ResourceId":"uhost-b","ResourceName":"web 2"},{"ResourceId":"uhost-a","ResourceName":"web 1"}],"RemoteIP":"203.0.113.7","AccessKeyID":"key-1"}"#;

fn print_of(source: Source, raw: &str) -> String {
    identify(source, raw).fingerprint.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_fingerprints_never_change() {
    for (source, raw, golden) in [
        (Source::Genauth, GENAUTH, "62a2b74860e7388cfeab00707ebbd909"),
        (Source::Scloud, SCLOUD, "2e1140541753b7f41f51137176a3634b"),
        (Source::Genauth, "{}", "c22e0858f25ccca25738ad14cec8724e"),
        (Source::Scloud, "{}", "74e630cff7046e1905a5adb75c4dd41f"),
        (
            Source::Genauth,
            r#"{"userId":7,"success":"yes","timestamp":"soon","geoip":null}"#,
            "d9fc791d347fbbdb7a491612861b1977",
        ),
        (
            Source::Scloud,
            r#"{"OperateTime":1.5,"RelatedResource":[{}, "x", {"ResourceId": [1, " "]}]}"#,
            "7397155fd9837b3ac66b51b28bddd9f0",
        ),
        (Source::Genauth, "not json", "f99d06f1253b744d64e5cca5033571bd"),
        (Source::Scloud, "not json", "b9439585fb56c91319f8e6661b45b988"),
    ] {
        assert_eq!(print_of(source, raw), golden, "{source} {raw}");
    }
}

#[test]
fn a_fingerprint_is_the_hash_of_the_canonical_form() {
    for (source, raw) in [(Source::Genauth, GENAUTH), (Source::Scloud, SCLOUD), (Source::Scloud, "not json")] {
        let hash = blake3::hash(&canonical(source, raw));
        assert_eq!(identify(source, raw).fingerprint.0, hash.as_bytes()[..16], "{raw}");
    }
}

#[test]
fn a_record_knows_its_time() {
    assert_eq!(identify(Source::Genauth, GENAUTH).time, Some(1_663_635_300_188));
    assert_eq!(identify(Source::Scloud, SCLOUD).time, Some(1_663_635_300_000));
    for operate_time in ["\"1663635300\"", "1663635300.0", "\"1663635300.00\""] {
        let raw = format!(r#"{{"OperateTime":{operate_time}}}"#);
        assert_eq!(identify(Source::Scloud, &raw).time, Some(1_663_635_300_000), "{raw}");
    }
    // Times in another unit or form than is documented are plain to a reader.
    for written in [
        "1663635300188",
        "\"1663635300188\"",
        "1663635300.188",
        "1.663635300188e9",
        "\"1.663635300188E+12\"",
        "1663635300188000",
        "1663635300188999999",
        "\"2022-09-20T08:55:00.188+0800\"",
        "\" 1663635300188 \"",
    ] {
        for (source, name) in [(Source::Scloud, "OperateTime"), (Source::Genauth, "timestamp")] {
            let raw = format!(r#"{{"{name}":{written}}}"#);
            assert_eq!(identify(source, &raw).time, Some(1_663_635_300_188), "{raw}");
        }
    }
    assert_eq!(identify(Source::Genauth, r#"{"timestamp":1663635300}"#).time, Some(1_663_635_300_000));
    for operate_time in
        ["null", "[]", "1.5", "\"soon\"", "1e400", "\"1e\"", "\"\"", "\"1_663\"", "true", "99999999999999999999999999"]
    {
        let raw = format!(r#"{{"OperateTime":{operate_time}}}"#);
        assert_eq!(identify(Source::Scloud, &raw).time, None, "{raw}");
    }
}

/// The record with the member set to another value.
fn with(raw: &str, member: &str, value: serde_json::Value) -> String {
    let mut record: serde_json::Map<_, _> = serde_json::from_str(raw).expect("the test's record is an object");
    record.insert(member.to_owned(), value);
    serde_json::to_string(&record).expect("a map is written")
}

fn without(raw: &str, member: &str) -> String {
    let mut record: serde_json::Map<_, _> = serde_json::from_str(raw).expect("the test's record is an object");
    record.remove(member).expect("it has the member");
    serde_json::to_string(&record).expect("a map is written")
}

#[test]
fn each_identity_field_tells_records_apart() {
    let fields = [
        (Source::Genauth, GENAUTH, "userId appId clientIp eventType eventDetail success userAgent timestamp requestId"),
        (
            Source::Scloud,
            SCLOUD,
            "Region Api IsSuccess OperateTime UserName UserEmail RelatedResource RemoteIP AccessKeyID",
        ),
    ];
    for (source, raw, fields) in fields {
        let mut seen = vec![print_of(source, raw)];
        for field in fields.split(' ') {
            for value in [
                serde_json::json!("other"),
                serde_json::json!(1),
                serde_json::json!("no"),
                serde_json::json!(false),
                serde_json::json!({ "ResourceId": "uhost-a" }),
                serde_json::json!([{ "ResourceId": "uhost-a" }]),
                serde_json::json!(null),
            ] {
                if value.is_null() && field.to_lowercase().contains("success") {
                    continue;
                }
                let print = print_of(source, &with(raw, field, value.clone()));
                assert!(!seen.contains(&print), "{source} {field} = {value} is another record");
                seen.push(print);
            }
        }
    }
}

/// A server that leaves out what is empty, as Go's `omitempty` does, and one that writes it are two nodes of one API, or one
/// before and after its upgrade.
#[test]
fn what_is_empty_may_be_left_out() {
    let texts = [
        (Source::Genauth, GENAUTH, "userId appId clientIp eventType eventDetail userAgent timestamp requestId"),
        (Source::Scloud, SCLOUD, "Region Api OperateTime UserName UserEmail RelatedResource RemoteIP AccessKeyID"),
    ];
    for (source, raw, members) in texts {
        for member in members.split(' ') {
            let set = |value| print_of(source, &with(raw, member, value));
            let absent = set(serde_json::Value::Null);
            assert_eq!(print_of(source, &without(raw, member)), absent, "{member}");
            assert_eq!(set("".into()), absent, "{member}");
            for other in [serde_json::json!(" "), serde_json::json!(false), serde_json::json!(0)] {
                assert_ne!(set(other.clone()), absent, "{member} {other}");
            }
        }
    }
    let emptied = SCLOUD.replace("\"uhost-a\"", "\"\"");
    assert_ne!(emptied, SCLOUD);
    assert_eq!(
        print_of(Source::Scloud, &emptied),
        print_of(Source::Scloud, &SCLOUD.replace("\"ResourceId\":\"uhost-a\",", ""))
    );

    for (source, raw, flag) in [(Source::Genauth, GENAUTH, "success"), (Source::Scloud, SCLOUD, "IsSuccess")] {
        let set = |value| print_of(source, &with(raw, flag, value));
        assert_eq!(print_of(source, &without(raw, flag)), set(false.into()));
        assert_eq!(set(serde_json::Value::Null), set(false.into()));
        assert_eq!(set("".into()), set(false.into()));
        for other in [serde_json::json!(true), serde_json::json!(0), serde_json::json!("false")] {
            assert_ne!(set(other.clone()), set(false.into()), "{flag} {other}");
        }
    }
}

/// What failed keeps the id that it always had.
#[test]
fn golden_fingerprints_of_what_failed_never_change() {
    for (source, raw, flag, golden) in [
        (Source::Genauth, GENAUTH, r#""success":"#, "bf57021d6bc7a707ec5dd2c392be6bbb"),
        (Source::Scloud, SCLOUD, r#""IsSuccess":"#, "684c480837b58a0d1f94981f4e716ad8"),
    ] {
        let failed = raw.replace(&format!("{flag}true"), &format!("{flag}false"));
        assert_ne!(failed, raw);
        assert_eq!(print_of(source, &failed), golden, "{source}");
    }
}

#[test]
fn what_is_looked_up_or_new_makes_no_difference() {
    let fields = [
        (
            Source::Genauth,
            GENAUTH,
            "userAvatar userDisplayName userLoginsCount appName appLogo appLoginUrl parsedUserAgent geoip newField",
        ),
        (Source::Scloud, SCLOUD, "NewField"),
    ];
    for (source, raw, fields) in fields {
        for field in fields.split(' ') {
            assert_eq!(print_of(source, &with(raw, field, serde_json::json!({ "new": [1] }))), print_of(source, raw));
            assert_eq!(print_of(source, &with(raw, field, serde_json::Value::Null)), print_of(source, raw), "{field}");
        }
    }
    let renamed = SCLOUD.replace("web 1", "web 3").replace(r#","ResourceName":"web 2""#, "");
    assert_eq!(print_of(Source::Scloud, &renamed), print_of(Source::Scloud, SCLOUD));
}

#[test]
fn another_spelling_of_the_same_act_makes_no_difference() {
    let spellings = [
        (Source::Genauth, GENAUTH, GENAUTH.replace(":\"", " :\n\t\"").replace('{', "{ ").replace(',', " , ")),
        (Source::Genauth, GENAUTH, GENAUTH.replace("+0800", "+08:00")),
        (Source::Genauth, GENAUTH, GENAUTH.replace("08:55:00.188+0800", "00:55:00.1880Z")),
        (Source::Genauth, GENAUTH, GENAUTH.replace("用户", "\\u7528\\u6237").replace("\"userId\"", "\"\\u0075serId\"")),
        (Source::Genauth, GENAUTH, GENAUTH.replace(r#"{"userId""#, r#"{"userId":"first","userId""#)),
        (Source::Scloud, SCLOUD, SCLOUD.replace("1663635300", "\"1663635300\"")),
        (
            Source::Scloud,
            SCLOUD,
            SCLOUD.replace("uhost-a", "x").replace("uhost-b", "uhost-a").replace("\"x\"", "\"uhost-b\""),
        ),
    ];
    for (source, raw, spelling) in spellings {
        assert_ne!(raw, spelling, "the test must change something");
        // Replacing commas changes the user agent's text too, which is an identity field.
        let raw = if spelling.contains(" , ") { raw.replace("KHTML, like", "KHTML ,  like") } else { raw.to_owned() };
        assert_eq!(identify(source, &spelling), identify(source, &raw), "{spelling}");
    }
    let mut members: Vec<_> =
        serde_json::from_str::<serde_json::Map<_, _>>(GENAUTH).expect("an object").into_iter().collect();
    members.reverse();
    let reversed = serde_json::Value::Object(members.into_iter().collect()).to_string();
    assert_ne!(reversed, GENAUTH);
    assert_eq!(identify(Source::Genauth, &reversed), identify(Source::Genauth, GENAUTH));
    let nested = |json: &str| print_of(Source::Genauth, &format!(r#"{{"userId":{json}}}"#));
    assert_eq!(nested(r#"{"a":[1," \" x "]}"#), nested("{ \"a\" : [ 1 ,\n\" \\\" x \" ] }"));
    assert_ne!(nested(r#"[" x"]"#), nested(r#"["x"]"#), "space within a string counts");
}

#[test]
fn an_absent_list_of_resources_is_an_empty_one() {
    assert_eq!(print_of(Source::Scloud, r#"{"RelatedResource":[]}"#), print_of(Source::Scloud, "{}"));
    assert_ne!(print_of(Source::Scloud, r#"{"RelatedResource":[{}]}"#), print_of(Source::Scloud, "{}"));
}

#[test]
fn what_is_no_record_is_identified_by_its_bytes() {
    for source in [Source::Genauth, Source::Scloud] {
        let texts = ["", "null", "[]", "[ ]", "1", "\"\"", "{", "{}}", "{\"userId\":}", "{\"\\ud800\":1}"];
        let prints: std::collections::BTreeSet<_> = texts.iter().map(|text| print_of(source, text)).collect();
        assert_eq!(prints.len(), texts.len());
        assert!(texts.iter().all(|text| identify(source, text).time.is_none()));
    }
    assert_ne!(print_of(Source::Genauth, "[]"), print_of(Source::Scloud, "[]"));
}

proptest::proptest! {
    #[test]
    fn any_text_has_an_identity(text in "\\PC*") {
        for source in [Source::Genauth, Source::Scloud] {
            proptest::prop_assert_eq!(identify(source, &text), identify(source, &text));
        }
    }
}
