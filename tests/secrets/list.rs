//! Fifty strings of the kinds that are kept secret: passwords, keys, tokens, and texts that contain
//! them.
//!
//! Each consists of words with letters and digits, so that a part of one is recognized anywhere.

pub(crate) const SECRETS: [&str; 50] = [
    // Passwords.
    "Blorvex7nimtark",
    "zanq4wuv blank9tolm",
    " leading8blank",
    "trailing8blank ",
    "quo\"te5marrow",
    "apo'strophe6kelm",
    "semi;colon3vadd",
    "equal=sign2brunt",
    "com,ma7fennig",
    "back\\slash4urdle",
    "line1broken\nsecond2line",
    "carriage3return\r\nfourth4line",
    "tab5stop\tnext6stop",
    "escape7seq\u{1b}[31mred8text",
    "päss9wörd",
    "密码7秘密8钥匙",
    "пароль5секрет6",
    "🔑emoji4key🔒after5lock",
    "$dollar6{brace7}",
    "%41percent8coded",
    "#hash9start",
    "!bang1begin",
    "<angle2>bracket3</angle2>",
    "nul3byte\0after4nul",
    "user5name:pass6word@host7name",
    "correct1horse battery2staple zebra3crossing",
    // Keys and certificates.
    "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgq7XkV2\n-----END PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAtq9zR5vK2mW8\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY-----MHcCAQEEIIf3dQ8kL0pZ-----END EC PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBg\n-----END ENCRYPTED PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIDazCCAlOgAwIBAgIUW5q8\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHalf9Written",
    "-----BEGIN Label7Secret-----\nnot8base64!\n-----END Label7Secret-----",
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49Bare64Line/abc+def0",
    // Tokens.
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZTQyIn0.c2lnbmF0dXJlOTk",
    "Bearer opaque4token5value",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "xoxb-123456789012-abc4def5ghi6",
    "sk-live-9fJ2kQ7wL3",
    "Basic dXNlcjVuYW1lOnBhc3M2d29yZA==",
    // AWS.
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE9KEY",
    "FwoGZXIvYXdzEBYaDK4session5token//////////wE=",
    "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = je7MtGbClwBF2Zp9Utk\n",
    // Connection strings of Azure and others.
    "Endpoint=sb://name1space.example/;SharedAccessKeyName=Root2Key;SharedAccessKey=Sv9c4Tq8=",
    "postgres://db5user:db6pass@db7host/db8name",
    // URLs.
    "https://idp.example/token?client_secret=query4secret&code=auth5code",
    "https://user6info:pass7info@idp.example/token",
    "http://idp.example:port8secret/token",
    // Texts that contain secrets.
    "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"jaas1user\" password=\"jaas2 pass3word\";",
    "ScramLoginModule required username=jaas4user password=jaas5 pass6word;",
];

/// Returns the parts by which a secret is recognized: its words of six or more characters with at
/// least a letter and a digit.
pub(crate) fn parts(secret: &str) -> Vec<&str> {
    let words = secret.split(|c: char| !c.is_alphanumeric());
    let is_one = |word: &&str| {
        word.chars().count() >= 6 && word.chars().any(char::is_numeric) && word.chars().any(char::is_alphabetic)
    };
    words.filter(is_one).collect()
}

/// Returns the first part of a secret that appears in a text.
pub(crate) fn leaked<'a>(secret: &'a str, text: &str) -> Option<&'a str> {
    parts(secret).into_iter().find(|part| text.contains(part))
}

#[test]
fn test_secrets_are_distinct_and_searchable() {
    for (at, secret) in SECRETS.iter().enumerate() {
        assert!(!parts(secret).is_empty(), "{secret:?}");
        assert!(!SECRETS[..at].contains(secret), "{secret:?}");
    }
    assert_eq!(leaked("a b quo\"te5marrow", "x te5marrow y"), Some("te5marrow"));
    assert_eq!(leaked("quo\"te5marrow", "quote"), None);
}
