//! Properties that are accepted and have no effect.

use super::ClientKind;
use crate::log::{Origin, event};

/// Their names by the reason, each once, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Ignored(Vec<(&'static str, Vec<&'static str>)>);

impl Ignored {
    pub(super) fn push(&mut self, name: &'static str, reason: &'static str) {
        let at = self.0.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
            self.0.push((reason, Vec::new()));
            self.0.len() - 1
        });
        if let Some((_, names)) = self.0.get_mut(at)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }

    /// Logs one warning that names them all. It shows no value, because any value may be a secret.
    pub(super) fn warn(&self, client: ClientKind, client_id: &str) {
        if self.0.is_empty() {
            return;
        }
        let groups = self.0.iter().map(|(reason, names)| format!("{} ({reason})", names.join(", ")));
        let groups = groups.collect::<Vec<_>>().join("; ");
        let role = match client {
            ClientKind::Producer => "producer",
            ClientKind::Consumer => "consumer",
            ClientKind::Admin => "admin",
        };
        let origin = Origin::new(client_id, role, None);
        event!(WARN, origin, "these properties have no effect on this {client} and are ignored: {groups}");
    }
}
