//! The properties that every client has.

use std::{marker::PhantomData, time::Duration};

use super::ClientSettings;
use crate::config::{
    Property,
    parse::{BOOLEAN, MILLIS, boolean, list, millis, millis_above_zero, millis_or_never, one_of, text, within},
};

const MILLIS_ABOVE_ZERO: &str = "milliseconds, 1 or more";
const MILLIS_OR_NEVER: &str = "milliseconds, 1 or more; 0 or -1 for never";

/// The table for settings `S` that hold [`ClientSettings`]; goes behind the client's own table in
/// [`apply`](crate::config::apply).
pub(crate) const fn client_properties<S: AsMut<ClientSettings> + 'static>() -> &'static [Property<S>] {
    Table::<S>::PROPERTIES
}

struct Table<S>(PhantomData<S>);

macro_rules! properties {
    ($($name:literal $(| $alias:literal)*, $allowed:expr, |$c:ident, $v:ident| $set:expr;)*) => {
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
            }),*];
        }
    };
}

properties! {
    // Each address is looked at by `ClientSettings::check`, which can say what is wrong with it.
    "bootstrap.servers" | "metadata.broker.list", "addresses of brokers, host:port, with commas between them",
        |c, v| c.bootstrap_servers = some(list(v).map(str::to_owned).collect())?;
    "client.id", "a string", |c, v| c.client_id = v.to_owned();
    "client.rack", "a string", |c, v| c.client_rack = text(v).map(str::to_owned);
    "client.dns.lookup", "use_all_dns_ips (all addresses of a name are tried in turn; nothing else is supported by this version)",
        |_c, v| one_of(v, &[("use_all_dns_ips", ())])?;
    "request.timeout.ms" | "socket.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.request_timeout = millis_above_zero(v)?;
    "default.api.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.default_api_timeout = millis_above_zero(v)?;
    "retry.backoff.ms", MILLIS, |c, v| c.retry_backoff = millis(v)?;
    "retry.backoff.max.ms", MILLIS, |c, v| c.retry_backoff_max = millis(v)?;
    "reconnect.backoff.ms", MILLIS, |c, v| c.reconnect_backoff = millis(v)?;
    "reconnect.backoff.max.ms", MILLIS, |c, v| c.reconnect_backoff_max = millis(v)?;
    "socket.connection.setup.timeout.ms", MILLIS_ABOVE_ZERO, |c, v| c.connection_setup_timeout = millis_above_zero(v)?;
    "socket.connection.setup.timeout.max.ms", MILLIS_ABOVE_ZERO,
        |c, v| c.connection_setup_timeout_max = millis_above_zero(v)?;
    "connections.max.idle.ms", MILLIS_OR_NEVER, |c, v| c.connections_max_idle = millis_or_never(v)?;
    "metadata.max.age.ms" | "topic.metadata.refresh.interval.ms", MILLIS_OR_NEVER,
        |c, v| c.metadata_max_age = millis_or_never(v)?;
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
    "allow.auto.create.topics", BOOLEAN, |c, v| c.allow_auto_create_topics = boolean(v)?;
    "receive.message.max.bytes", "bytes, 1000 to 2147483647",
        |c, v| c.receive_message_max_bytes = within(v, 1000..=2_147_483_647)?;
    "security.protocol", "PLAINTEXT (TLS and SASL are not supported by this version)",
        |_c, v| one_of(v, &[("PLAINTEXT", ())])?;
    // KIP-714: there is nothing that would push metrics yet, so that both values mean the same.
    "enable.metrics.push", BOOLEAN, |_c, v| boolean(v).map(drop)?;
}

const DEFAULT_TRIGGER: Duration = Duration::from_secs(300);

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
