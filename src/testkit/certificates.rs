//! Certificates and keys to test TLS with, as PEM: for `localhost`, 127.0.0.1 and ::1, valid until
//! 2125. The keys are public, so they secure nothing.

/// The authority that issued [`SERVER`] and [`CLIENT`].
pub const AUTHORITY: &str = include_str!("certificates/authority.pem");
/// Another authority, which issued [`SERVER_OF_A_STRANGER`] and [`CLIENT_OF_A_STRANGER`].
pub const STRANGER: &str = include_str!("certificates/stranger.pem");
/// A broker's certificate.
pub const SERVER: &str = include_str!("certificates/server.pem");
/// The key of [`SERVER`].
pub const SERVER_KEY: &str = include_str!("certificates/server.key");
/// Another certificate for the same broker, with its own key.
pub const SERVER_RENEWED: &str = include_str!("certificates/server-renewed.pem");
/// The key of [`SERVER_RENEWED`].
pub const SERVER_RENEWED_KEY: &str = include_str!("certificates/server-renewed.key");
/// A broker's certificate that expired in 2024.
pub const SERVER_EXPIRED: &str = include_str!("certificates/server-expired.pem");
/// The key of [`SERVER_EXPIRED`].
pub const SERVER_EXPIRED_KEY: &str = include_str!("certificates/server-expired.key");
/// A broker's certificate for the host `elsewhere.example`.
pub const SERVER_ELSEWHERE: &str = include_str!("certificates/server-elsewhere.pem");
/// The key of [`SERVER_ELSEWHERE`].
pub const SERVER_ELSEWHERE_KEY: &str = include_str!("certificates/server-elsewhere.key");
/// A broker's certificate issued by [`STRANGER`].
pub const SERVER_OF_A_STRANGER: &str = include_str!("certificates/server-stranger.pem");
/// The key of [`SERVER_OF_A_STRANGER`].
pub const SERVER_OF_A_STRANGER_KEY: &str = include_str!("certificates/server-stranger.key");
/// A client's certificate, `CN=alice`.
pub const CLIENT: &str = include_str!("certificates/client.pem");
/// The key of [`CLIENT`].
pub const CLIENT_KEY: &str = include_str!("certificates/client.key");
/// The key of [`CLIENT`], encrypted (PKCS#8) with the password `ottla`.
pub const CLIENT_KEY_ENCRYPTED: &str = include_str!("certificates/client-encrypted.key");
/// A client's certificate issued by [`STRANGER`].
pub const CLIENT_OF_A_STRANGER: &str = include_str!("certificates/client-stranger.pem");
/// The key of [`CLIENT_OF_A_STRANGER`].
pub const CLIENT_OF_A_STRANGER_KEY: &str = include_str!("certificates/client-stranger.key");
