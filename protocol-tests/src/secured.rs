//! Listeners of every kind of security.

use crate::builder::Builder;

/// The certificate authority of the listeners, and the files that a client needs: those of Ottla's
/// testkit.
#[derive(Clone, Copy, Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub authority: &'static str,
    /// A client's certificate, `CN=alice`.
    pub client: &'static str,
    /// The client's key.
    pub client_key: &'static str,
    /// Another certificate for the broker, from the same authority.
    pub server_renewed: &'static str,
    /// The key of `server_renewed`.
    pub server_renewed_key: &'static str,
}

const SERVER: &str = include_str!("../../src/testkit/certificates/server.pem");
const SERVER_KEY: &str = include_str!("../../src/testkit/certificates/server.key");

/// The certificates of [`Builder::secured`]'s listeners.
pub const CERTIFICATES: Certificates = Certificates {
    authority: include_str!("../../src/testkit/certificates/authority.pem"),
    client: include_str!("../../src/testkit/certificates/client.pem"),
    client_key: include_str!("../../src/testkit/certificates/client.key"),
    server_renewed: include_str!("../../src/testkit/certificates/server-renewed.pem"),
    server_renewed_key: include_str!("../../src/testkit/certificates/server-renewed.key"),
};

/// The user of [`Builder::secured`]'s listeners, for every mechanism but OAUTHBEARER, which lets
/// every user in.
pub const USER: &str = "alice";
/// The password of [`USER`]. It has characters beyond ASCII, because clients differ in these.
pub const PASSWORD: &str = "wönder";

impl Builder {
    /// Adds listeners of every kind beside the plain one: `TLS` (SSL), `MUTUAL` (SSL with client
    /// certificates), `SASL` (SASL_PLAINTEXT) and `BOTH` (SASL_SSL), with [`CERTIFICATES`] and
    /// [`USER`]. OAUTHBEARER accepts unsecured tokens. Brokers before 3.5 have no SCRAM credentials
    /// when they run as KRaft. The version has to be set before.
    #[must_use]
    pub fn secured(self) -> Self {
        let has_scram = self.has_scram();
        let mut builder = self
            .listener("TLS", "SSL")
            .listener("MUTUAL", "SSL")
            .listener("SASL", "SASL_PLAINTEXT")
            .listener("BOTH", "SASL_SSL");
        if has_scram {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                builder = builder
                    .format_arg("--add-scram")
                    .format_arg(&format!("{mechanism}=[name={USER},password={PASSWORD}]"));
            }
        }
        for listener in ["tls", "mutual", "both"] {
            let name = |end: &str| format!("listener.name.{listener}.ssl.{end}");
            builder = builder
                .config(&name("keystore.type"), "PEM")
                .config(&name("keystore.certificate.chain"), SERVER)
                .config(&name("keystore.key"), SERVER_KEY)
                .config(&name("truststore.type"), "PEM")
                .config(&name("truststore.certificates"), CERTIFICATES.authority)
                .config(&name("client.auth"), if listener == "mutual" { "required" } else { "none" });
        }
        let module = "org.apache.kafka.common.security";
        for listener in ["sasl", "both"] {
            let name = |end: &str| format!("listener.name.{listener}.{end}");
            let jaas = |mechanism: &str| name(&format!("{mechanism}.sasl.jaas.config"));
            let scram = format!("{module}.scram.ScramLoginModule required;");
            builder = builder
                .config(&name("sasl.enabled.mechanisms"), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER")
                .config(
                    &jaas("plain"),
                    &format!("{module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";"),
                )
                .config(&jaas("scram-sha-256"), &scram)
                .config(&jaas("scram-sha-512"), &scram)
                .config(
                    &jaas("oauthbearer"),
                    &format!(
                        "{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"x\";"
                    ),
                );
        }
        builder
    }
}
