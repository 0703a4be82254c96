//! Properties that every client has.

use std::{marker::PhantomData, time::Duration};

use super::ClientSettings;
use crate::config::{
    Property,
    parse::{BOOLEAN, MILLIS, boolean, list, millis, millis_above_zero, millis_or_never, one_of, text, within},
};

const MILLIS_ABOVE_ZERO: &str = "milliseconds, 1 or more";
const MILLIS_OR_NEVER: &str = "milliseconds, 1 or more; 0 or -1 for never";

/// Returns the table for settings `S` that hold [`ClientSettings`]; it comes after the client's own
/// table in [`apply`](crate::config::apply).
pub(crate) const fn client_properties<S: AsMut<ClientSettings> + 'static>() -> &'static [Property<S>] {
    Table::<S>::PROPERTIES
}

struct Table<S>(PhantomData<S>);

macro_rules! properties {
    (
        $($name:literal $(| $alias:literal)*, $allowed:expr, |$c:ident, $v:ident| $set:expr;)*
        security: $($secured:literal $(| $secured_alias:literal)*;)*
    ) => {
        impl<S: AsMut<ClientSettings> + 'static> Table<S> {
            const PROPERTIES: &'static [Property<S>] = &[$(Property {
                name: $name,
                aliases: &[$($alias),*],
                allowed: $allowed,
                set: |settings, $v| {
                    let $c = settings.as_mut();
                    $set;
                    Some(())
                },
            },)* $(Property {
                name: $secured,
                aliases: &[$($secured_alias),*],
                // The allowed values depend on other properties, so they are checked when all are
                // known.
                allowed: "",
                set: |settings, value| settings.as_mut().security.set($secured, value),
            }),*];
        }
    };
}

properties! {
    // Each address is checked by `ClientSettings::check`, and its error says what is wrong.
    "bootstrap.servers" | "metadata.broker.list", "addresses of brokers, host:port, with commas between them",
        |c, v| c.bootstrap_servers = some(list(v).map(str::to_owned).collect())?;
    "client.id", "a string", |c, v| c.client_id = v.to_owned();
    "client.rack", "a string", |c, v| c.client_rack = text(v).map(str::to_owned);
    "client.dns.lookup", "use_all_dns_ips (all addresses of a name are tried in turn; nothing else is supported by this version)",
        |_c, v| one_of(v, &[("use_all_dns_ips", ())])?;
    "bootstrap.resolve.timeout.ms", "milliseconds, 1 or more; 0 for no bound",
        |c, v| c.bootstrap_resolve_timeout = Some(millis(v)?).filter(|timeout| !timeout.is_zero());
    "request.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.request_timeout = millis_above_zero(v)?;
    "socket.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.socket_timeout = Some(millis_above_zero(v)?);
    "default.api.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.default_api_timeout = millis_above_zero(v)?;
    "retry.backoff.ms", MILLIS, |c, v| c.retry_backoff = millis(v)?;
    "retry.backoff.max.ms", MILLIS, |c, v| c.retry_backoff_max = millis(v)?;
    "reconnect.backoff.ms", MILLIS, |c, v| c.reconnect_backoff = millis(v)?;
    "reconnect.backoff.max.ms", MILLIS, |c, v| c.reconnect_backoff_max = millis(v)?;
    "socket.connection.setup.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.connection_setup_timeout = millis_above_zero(v)?;
    "socket.connection.setup.timeout.max.ms", MILLIS_ABOVE_ZERO,
        |c, v| c.connection_setup_timeout_max = millis_above_zero(v)?;
    "connections.max.idle.ms", MILLIS_OR_NEVER, |c, v| c.connections_max_idle = millis_or_never(v)?;
    "metadata.max.age.ms", MILLIS_OR_NEVER, |c, v| c.metadata_max_age = millis_or_never(v)?;
    "topic.metadata.refresh.interval.ms", MILLIS_OR_NEVER, |c, v| c.metadata_refresh = Some(millis_or_never(v)?);
    "metadata.max.idle.ms", MILLIS_ABOVE_ZERO, |c, v| c.metadata_max_idle = millis_above_zero(v)?;
    "metadata.recovery.strategy", "rebootstrap or none", |c, v| {
        let rebootstrap = one_of(v, &[("rebootstrap", true), ("none", false)])?;
        // The trigger may have been set before, so that the two may come in any order.
        c.metadata_rebootstrap_trigger = rebootstrap.then(|| c.metadata_rebootstrap_trigger.unwrap_or(DEFAULT_TRIGGER));
    };
    "metadata.recovery.rebootstrap.trigger.ms", MILLIS, |c, v| {
        let trigger = millis(v)?;
        c.metadata_rebootstrap_trigger = c.metadata_rebootstrap_trigger.map(|_| trigger);
    };
    "metadata.cluster.check.enable", BOOLEAN, |c, v| c.metadata_cluster_check = boolean(v)?;
    "allow.auto.create.topics", BOOLEAN, |c, v| c.allow_auto_create_topics = boolean(v)?;
    "receive.message.max.bytes", "bytes, 1000 to 2147483647",
        |c, v| c.receive_message_max_bytes = within(v, 1000..=2_147_483_647)?;
    // KIP-714: this client does not push metrics yet; `true` causes a warning that says so.
    "enable.metrics.push", BOOLEAN, |_c, v| boolean(v).map(drop)?;
security:
    "security.protocol";
    "ssl.ca.location";
    "ssl.ca.pem";
    "ssl.truststore.location";
    "ssl.truststore.certificates";
    "ssl.truststore.type";
    "ssl.truststore.password";
    "ssl.certificate.location";
    "ssl.certificate.pem";
    "ssl.key.location";
    "ssl.key.pem";
    "ssl.key.password";
    "ssl.keystore.location";
    "ssl.keystore.certificate.chain";
    "ssl.keystore.key";
    "ssl.keystore.type";
    "ssl.keystore.password";
    "ssl.protocol";
    "ssl.enabled.protocols";
    "ssl.endpoint.identification.algorithm";
    "enable.ssl.certificate.verification";
    "https.ca.location";
    "https.ca.pem";
    "sasl.mechanism" | "sasl.mechanisms";
    "sasl.jaas.config";
    "sasl.username";
    "sasl.password";
    "sasl.login.connect.timeout.ms";
    "sasl.login.read.timeout.ms";
    "sasl.login.retry.backoff.ms";
    "sasl.login.retry.backoff.max.ms";
    "sasl.login.refresh.window.factor";
    "sasl.login.refresh.window.jitter";
    "sasl.login.refresh.min.period.seconds";
    "sasl.login.refresh.buffer.seconds";
    "sasl.oauthbearer.token.endpoint.url";
    "sasl.oauthbearer.client.credentials.client.id" | "sasl.oauthbearer.client.id";
    "sasl.oauthbearer.client.credentials.client.secret" | "sasl.oauthbearer.client.secret";
    "sasl.oauthbearer.scope";
    "sasl.oauthbearer.extensions";
    "sasl.oauthbearer.method";
    "sasl.oauthbearer.config";
    "sasl.oauthbearer.grant.type";
    "sasl.oauthbearer.header.urlencode";
    "sasl.oauthbearer.jwt.retriever.class";
    "sasl.oauthbearer.assertion.file";
    "sasl.oauthbearer.assertion.algorithm";
    "sasl.oauthbearer.assertion.private.key.file";
    "sasl.oauthbearer.assertion.private.key.passphrase";
    "sasl.oauthbearer.assertion.claim.aud" | "sasl.oauthbearer.assertion.jwt.claim.aud";
    "sasl.oauthbearer.assertion.claim.iss" | "sasl.oauthbearer.assertion.jwt.claim.iss";
    "sasl.oauthbearer.assertion.claim.sub" | "sasl.oauthbearer.assertion.jwt.claim.sub";
    "sasl.oauthbearer.assertion.claim.exp.seconds";
    "sasl.oauthbearer.assertion.claim.nbf.seconds";
    "sasl.oauthbearer.assertion.claim.jti.include";
    "sasl.login.callback.handler.class";
    "sasl.client.callback.handler.class";
    "enable.sasl.oauthbearer.unsecure.jwt";
}

const DEFAULT_TRIGGER: Duration = Duration::from_secs(300);

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
