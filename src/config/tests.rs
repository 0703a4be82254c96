mod names;
mod one_file;
mod pairs_in_conflict;
mod servers;
mod world;

use super::*;

#[derive(Debug, Default, PartialEq)]
struct Settings {
    linger: u32,
    name: String,
    secret: u32,
}

impl Configure for Settings {
    const CLIENT: ClientKind = ClientKind::Producer;

    fn note(&mut self, _: &'static str) {}

    fn client_id(&self) -> &str {
        "test"
    }
}

static OWN: &[Property<Settings>] = &[Property {
    name: "linger.ms",
    aliases: &["queue.buffering.max.ms"],
    allowed: "milliseconds, 0 or more",
    set: |settings, value| parse::number(value).map(|value| settings.linger = value),
}];

static COMMON: &[Property<Settings>] = &[
    Property {
        name: "client.id",
        aliases: &[],
        allowed: "a string",
        set: |settings, value| {
            settings.name = value.to_owned();
            Some(())
        },
    },
    Property {
        name: "some.password",
        aliases: &[],
        allowed: "a number",
        set: |settings, value| parse::number(value).map(|value| settings.secret = value),
    },
    Property { name: "linger.ms", aliases: &[], allowed: "nothing", set: |_, _| None },
];

fn applied(pairs: &[(&str, &str)]) -> Result<Settings> {
    let mut settings = Settings::default();
    apply(&mut settings, &[OWN, COMMON], pairs.iter().copied())?;
    Ok(settings)
}

fn refused(pairs: &[(&str, &str)]) -> String {
    let error = applied(pairs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

#[test]
fn applies_values_by_name_or_alias() {
    let wanted = Settings { linger: 5, name: "a b".to_owned(), secret: 0 };
    assert_eq!(applied(&[("linger.ms", "5"), ("client.id", "a b")]).unwrap(), wanted);
    assert_eq!(applied(&[("client.id", "a b"), (" queue.buffering.max.ms ", " 5 ")]).unwrap(), wanted);
    let owned = [("linger.ms".to_owned(), 5.to_string())];
    let mut settings = Settings::default();
    apply(&mut settings, &[OWN], owned).unwrap();
    assert_eq!(settings.linger, 5);
}

#[test]
fn unknown_property_suggests_nearest_name() {
    assert_eq!(refused(&[("linger.mss", "5")]), "unknown property `linger.mss`; did you mean `linger.ms`?");
    assert!(refused(&[("queue.bufering.max.ms", "5")]).contains("did you mean `queue.buffering.max.ms`?"));
    assert!(refused(&[("colour", "red")]).starts_with("unknown property `colour`; names are"));
}

#[test]
fn unsupported_kafka_property_explains_refusal() {
    assert_eq!(
        refused(&[("sasl.kerberos.kinit.cmd", "/x")]),
        "property `sasl.kerberos.kinit.cmd` is known to Kafka but not supported here: GSSAPI is not built in; a crate that has it gives its mechanism to `Sasl::mechanism`"
    );
    assert!(applied(&[("group.id", "g"), ("key.serializer", "x")]).is_ok(), "they have no effect on a producer");
}

#[test]
fn invalid_value_error_lists_allowed_values() {
    assert_eq!(
        refused(&[("linger.ms", "5s")]),
        "property `linger.ms`: \"5s\" is not allowed; allowed: milliseconds, 0 or more"
    );
    assert!(
        refused(&[("queue.buffering.max.ms", "-1")])
            .starts_with("property `queue.buffering.max.ms` (`linger.ms`): \"-1\"")
    );
}

#[test]
fn errors_hide_values_of_secret_properties() {
    let error = refused(&[("some.password", "hunter2")]);
    assert!(!error.contains("hunter2") && error.contains("(hidden)"), "{error}");
    let error = refused(&[("some.password", "1"), ("some.password", "22")]);
    assert!(!error.contains("22"), "{error}");
}

#[test]
fn debug_of_pending_pairs_hides_secrets() {
    let mut pairs = Pairs::default();
    pairs.push("sasl.password", "hunter2");
    pairs.push("ssl.keystore.key", "hunter2");
    pairs.push("client.id", "me");
    pairs.push("linger.ms", "5");
    pairs.push("hunter2 linger.ms", "5");
    let shown = format!("{pairs:?}");
    assert!(!shown.contains("hunter2") && shown.contains("\"linger.ms\": \"\\\"5\\\"\""), "{shown}");
}

#[test]
fn rejects_repeated_property_only_when_values_differ() {
    assert_eq!(applied(&[("linger.ms", "5"), ("queue.buffering.max.ms", "5 ")]).unwrap().linger, 5);
    let error = refused(&[("linger.ms", "5"), ("queue.buffering.max.ms", "6")]);
    assert_eq!(
        error,
        "property `queue.buffering.max.ms` (`linger.ms`) is given twice, as \"5\" and as \"6\"; give it once"
    );
}

#[test]
fn parses_values_of_every_property_type() {
    use std::time::Duration;

    use super::parse::*;
    assert_eq!(millis(" 1500 "), Some(Duration::from_millis(1500)));
    assert_eq!(millis("9223372036854775807"), Some(FOREVER));
    assert!(std::time::Instant::now().checked_add(FOREVER).is_some());
    assert_eq!((millis("-1"), millis("1.5"), millis(""), millis_above_zero("0")), (None, None, None, None));
    assert_eq!(
        (millis_or_never("-1"), millis_or_never("0"), millis_or_never("-2")),
        (Some(FOREVER), Some(FOREVER), None)
    );
    let fraction = |value| millis_with_fraction(value).map(|time| time.as_micros());
    assert_eq!([fraction("5"), fraction(" 5.0 "), fraction("0.5")], [Some(5000), Some(5000), Some(500)]);
    assert_eq!(millis_with_fraction("99999999999999999999.5"), Some(FOREVER));
    for bad in ["-0.5", "1e3", "nan", "inf", ".", "", "1.2.3", "0x1"] {
        assert_eq!(fraction(bad), None, "{bad}");
    }
    assert_eq!((millis_or_unbounded("0"), millis_or_unbounded("-1")), (Some(FOREVER), None));
    assert_eq!(millis_or_unbounded("7"), Some(Duration::from_millis(7)));
    assert_eq!((boolean("TRUE"), boolean("false"), boolean("1")), (Some(true), Some(false), None));
    assert_eq!((within("7", 1..=7), within("8", 1..=7)), (Some(7), None));
    assert_eq!(list(" a, ,b ,").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((one_of("ALL", &[("all", 1)]), one_of("some", &[("all", 1)])), (Some(1), None));
    assert_eq!((text(" x "), text(" ")), (Some("x"), None));
}
