//! The events that the programs print, in the format of both.

use serde_json::Value;

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
        let json: Value = serde_json::from_str(line).ok()?;
        let at = json["timestamp"].as_i64()?;
        let partition = |json: &Value| i32::try_from(json["partition"].as_i64()?).ok();
        let place = |json: &Value| Some((partition(json)?, json["offset"].as_i64()?));
        let list = |name: &str| json[name].as_array().into_iter().flatten();
        let partitions = || list("partitions").map(partition).collect::<Option<Vec<_>>>();
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let event = match json["name"].as_str()? {
            "startup_complete" => Self::Started,
            "shutdown_complete" => Self::Ended,
            "producer_send_success" => Self::Sent { value: text("value")?, at: place(&json)? },
            "producer_send_error" => Self::SendFailed { message: text("message").unwrap_or_default() },
            "partitions_assigned" => Self::Assigned(partitions()?),
            "partitions_revoked" => Self::Revoked(partitions()?),
            "record_data" => Self::Record { value: text("value")?, at: place(&json)? },
            "offsets_committed" => Self::Committed {
                offsets: list("offsets").map(place).collect::<Option<_>>()?,
                error: (json["success"] != true).then(|| text("error").unwrap_or_else(|| "no reason given".to_owned())),
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
        for other in
            ["[main] INFO something", "", "17", r#"{"timestamp":1}"#, r#"{"timestamp":1,"name":"record_data"}"#]
        {
            assert_eq!(Event::read(other), None, "{other}");
        }
    }
}
