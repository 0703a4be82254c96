//! The events that the programs print, in the format of both.

use crate::json::Json;

pub(crate) type Place = (i32, i64);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Started,
    Ended,
    Sent {
        value: String,
        at: Place,
    },
    SendFailed {
        message: String,
    },
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Record {
        value: String,
        at: Place,
    },
    Committed {
        offsets: Vec<Place>,
        error: Option<String>,
    },
    /// An event that is ignored, such as a summary.
    Other,
}

impl Event {
    /// Parses an event and its time in milliseconds; `None` for a line that is not an event, such
    /// as a log line on standard output.
    pub(crate) fn read(line: &str) -> Option<(i64, Self)> {
        let json = Json::parse(line)?;
        let at = json.number("timestamp")?;
        let partition = |json: &Json| json.number("partition").and_then(|partition| i32::try_from(partition).ok());
        let place = |json: &Json| Some((partition(json)?, json.number("offset")?));
        let partitions = || json.list("partitions").iter().map(partition).collect::<Option<Vec<_>>>();
        let value = || json.text("value").map(str::to_owned);
        let event = match json.text("name")? {
            "startup_complete" => Self::Started,
            "shutdown_complete" => Self::Ended,
            "producer_send_success" => Self::Sent { value: value()?, at: place(&json)? },
            "producer_send_error" => Self::SendFailed { message: json.text("message").unwrap_or_default().to_owned() },
            "partitions_assigned" => Self::Assigned(partitions()?),
            "partitions_revoked" => Self::Revoked(partitions()?),
            "record_data" => Self::Record { value: value()?, at: place(&json)? },
            "offsets_committed" => Self::Committed {
                offsets: json.list("offsets").iter().map(place).collect::<Option<_>>()?,
                error: (json.get("success") != Some(&Json::Bool(true)))
                    .then(|| json.text("error").unwrap_or("no reason given").to_owned()),
            },
            _ => Self::Other,
        };
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_producer_and_consumer() {
        // The format of Kafka's own programs.
        let sent = r#"{"timestamp":1732000000000,"name":"producer_send_success","key":null,"value":"5","partition":2,"offset":7,"topic":"t"}"#;
        assert_eq!(Event::read(sent), Some((1_732_000_000_000, Event::Sent { value: "5".into(), at: (2, 7) })));
        let committed = r#"{"timestamp":1,"name":"offsets_committed","offsets":[{"topic":"t","partition":0,"offset":9}],"success":true}"#;
        assert_eq!(Event::read(committed), Some((1, Event::Committed { offsets: vec![(0, 9)], error: None })));
        let failed = r#"{"timestamp":1,"name":"offsets_committed","offsets":[],"error":"late","success":false}"#;
        assert_eq!(Event::read(failed), Some((1, Event::Committed { offsets: vec![], error: Some("late".into()) })));
        let assigned = r#"{"timestamp":1,"name":"partitions_assigned","partitions":[{"topic":"t","partition":1}]}"#;
        assert_eq!(Event::read(assigned), Some((1, Event::Assigned(vec![1]))));
        assert_eq!(Event::read("[main] INFO something"), None);
    }
}
