//! The results: every run, by case and client.

use serde_json::{Map, Value, json};

use crate::{
    machine::Machine,
    plan::{Case, Client, LIMIT, OTTLA},
    stats::Stats,
};

/// The fields of the line that a runner or the sink prints.
#[derive(Clone, Debug, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn read(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map(Self).map_err(|error| format!("{error} in {line:?}"))
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
}

/// One run of one client.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The runner's line.
    pub found: Fields,
    /// Wire bytes per record from the sink's totals, including the warm-up; `None` with a real
    /// broker.
    pub wire_bytes: Option<f64>,
    /// The protocol of the transactions, 1 or 2, from the sink's totals; `None` with a real broker
    /// and without transactions.
    pub protocol: Option<u8>,
}

/// All runs of one client in one case.
#[derive(Clone, Debug)]
pub struct Row {
    pub client: &'static str,
    pub runs: Vec<Run>,
    /// The reasons why runs failed.
    pub failures: Vec<String>,
}

impl Row {
    /// Returns the statistics of a number in the runner's line.
    pub fn stats(&self, name: &str) -> Option<Stats> {
        Stats::of(self.runs.iter().filter_map(|run| run.found.number(name)))
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        Some(self.stats(name)?.median)
    }

    pub fn wire_bytes(&self) -> Option<Stats> {
        Stats::of(self.runs.iter().filter_map(|run| run.wire_bytes))
    }

    pub fn protocol(&self) -> Option<u8> {
        self.runs.iter().find_map(|run| run.protocol)
    }

    pub fn version(&self) -> Option<&str> {
        self.runs.iter().find_map(|run| run.found.text("version"))
    }
}

#[derive(Clone, Debug)]
pub struct CaseResults {
    pub case: Case,
    pub rows: Vec<Row>,
}

/// Ottla compared with the best of the others; the best client may differ from number to number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub ottla: f64,
    pub other: f64,
    pub who: &'static str,
}

impl Ratio {
    pub fn quotient(&self) -> f64 {
        self.ottla / self.other
    }
}

impl CaseResults {
    pub fn row(&self, client: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.client == client)
    }

    /// Returns the ratio for Ottla's way to send record by record, which the others have too.
    pub fn ratio(&self, name: &str, more_is_better: bool) -> Option<Ratio> {
        let ottla = self.row(OTTLA)?.median(name)?;
        let others = self.rows.iter().filter(|row| Client::is_other(row.client));
        let medians = others.filter_map(|row| Some((row.client, row.median(name)?)));
        let best = |a: &(_, f64), b: &(_, f64)| if more_is_better { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) };
        let (who, other) = medians.max_by(best)?;
        Some(Ratio { ottla, other, who })
    }

    /// Returns the limit's records per second.
    pub fn limit(&self) -> Option<f64> {
        self.row(LIMIT)?.median("records_per_s")
    }
}

/// All results of the comparison.
#[derive(Debug)]
pub struct Results {
    pub machine: Machine,
    pub broker: String,
    pub rounds: usize,
    pub seconds: f64,
    pub cases: Vec<CaseResults>,
    /// Clients that could not be built, with the reason.
    pub left_out: Vec<(&'static str, String)>,
}

impl Results {
    pub fn failures(&self) -> impl Iterator<Item = (&str, &'static str, &str)> {
        let rows = self.cases.iter().flat_map(|case| case.rows.iter().map(|row| (case.case.name.as_str(), row)));
        rows.flat_map(|(case, row)| row.failures.iter().map(move |why| (case, row.client, why.as_str())))
    }

    /// Returns an object, with `null` for missing numbers and those that are not finite.
    pub fn to_json(&self) -> Value {
        let Machine { cpu, cores, kernel, load } = &self.machine;
        let left_out = self.left_out.iter().map(|(client, why)| json!({ "client": client, "why": why }));
        json!({
            "machine": { "cpu": cpu, "cores": cores, "kernel": kernel, "load": load.map(number) },
            "broker": self.broker,
            "rounds": self.rounds,
            "seconds": number(self.seconds),
            "left_out": left_out.collect::<Value>(),
            "cases": self.cases.iter().map(case_json).collect::<Value>(),
        })
    }
}

const NUMBERS: [&str; 7] =
    ["records", "records_per_s", "cpu_us_per_record", "rss_peak_mb", "p50_us", "p99_us", "p999_us"];

fn case_json(results: &CaseResults) -> Value {
    let Case { name, work: _, size, partitions, keyed, compression, tls } = &results.case;
    json!({
        "case": name,
        "size": size,
        "partitions": partitions,
        "keyed": keyed,
        "compression": compression,
        "tls": tls,
        "rate": results.case.rate(),
        "transaction": results.case.transaction(),
        "clients": results.rows.iter().map(row_json).collect::<Value>(),
    })
}

fn row_json(row: &Row) -> Value {
    let stats = NUMBERS.into_iter().filter_map(|name| Some((name, row.stats(name)?)));
    let stats = stats.chain(row.wire_bytes().map(|stats| ("wire_bytes_per_record", stats)));
    let mut json = json!({ "client": row.client, "version": row.version(), "protocol": row.protocol() });
    for (name, Stats { median, min, max, iqr }) in stats {
        json[name] = json!({ "median": number(median), "min": number(min), "max": number(max), "iqr": number(iqr) });
    }
    json["rounds"] = row.runs.iter().map(run_json).collect();
    json["failures"] = json!(row.failures);
    json
}

fn run_json(run: &Run) -> Value {
    let numbers = NUMBERS.into_iter().filter_map(|name| Some((name, run.found.number(name)?)));
    numbers
        .chain(run.wire_bytes.map(|bytes| ("wire_bytes_per_record", bytes)))
        .map(|(name, n)| (name, number(n)))
        .collect()
}

/// Returns a whole number without a fraction, as `4000000` instead of `4000000.0`.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { Value::from(number as i64) } else { Value::from(number) }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::plan;

    /// Makes a row from records per second and CPU microseconds of each round.
    pub fn row(client: &'static str, rounds: &[(f64, f64)]) -> Row {
        let run = |(rate, cpu): &(f64, f64)| {
            let line = format!(
                "{{\"version\":\"1.0\",\"records\":10,\"records_per_s\":{rate},\"cpu_us_per_record\":{cpu},\
                 \"rss_peak_mb\":20,\"p50_us\":100,\"p99_us\":200,\"p999_us\":300}}"
            );
            Run { found: Fields::read(&line).unwrap(), wire_bytes: Some(110.0), protocol: None }
        };
        Row { client, runs: rounds.iter().map(run).collect(), failures: Vec::new() }
    }

    pub fn results() -> Results {
        let rows = vec![
            row("ottla", &[(3e6, 0.2), (4e6, 0.3), (5e6, 0.4)]),
            row("ottla-batch", &[(9e6, 0.1)]),
            row("rdkafka", &[(2e6, 0.9)]),
            row("java", &[(1e6, 0.6)]),
            row("limit", &[(2e7, 0.05)]),
        ];
        let latency = plan::cases().into_iter().find(|case| case.is_latency()).unwrap();
        Results {
            machine: Machine { cpu: "a <CPU>".to_owned(), cores: 2, kernel: "linux 6".to_owned(), load: Some(0.5) },
            broker: "sink".to_owned(),
            rounds: 3,
            seconds: 1.5,
            cases: vec![
                CaseResults { case: plan::cases().remove(0), rows },
                CaseResults { case: latency, rows: vec![row("ottla", &[(2e3, 9.0)]), row("java", &[(2e3, 20.0)])] },
            ],
            left_out: vec![("krafka", "no \"runner\"".to_owned())],
        }
    }

    #[test]
    fn ratio_compares_with_best_other_client() {
        let results = results();
        let case = &results.cases[0];
        assert_eq!(case.ratio("records_per_s", true), Some(Ratio { ottla: 4e6, other: 2e6, who: "rdkafka" }));
        assert_eq!(case.ratio("cpu_us_per_record", false), Some(Ratio { ottla: 0.3, other: 0.6, who: "java" }));
        assert_eq!(case.limit(), Some(2e7));
        assert_eq!(case.ratio("records_per_s", true).unwrap().quotient(), 2.0);
    }

    #[test]
    fn ratio_requires_another_client() {
        let mut case = results().cases.remove(0);
        case.rows.retain(|row| !Client::is_other(row.client));
        assert_eq!(case.ratio("records_per_s", true), None);
        case.rows.clear();
        assert_eq!((case.ratio("records_per_s", true), case.limit()), (None, None));
    }

    #[test]
    fn json_contains_every_run_and_failure() {
        let json = results().to_json().to_string();
        assert!(
            json.contains("\"records_per_s\":{\"median\":4000000,\"min\":3000000,\"max\":5000000,\"iqr\":1000000}")
        );
        assert!(json.contains("{\"client\":\"krafka\",\"why\":\"no \\\"runner\\\"\"}"));
        assert_eq!(json.matches("\"records\":10,").count(), 9);
        assert!(json.starts_with(
            "{\"machine\":{\"cpu\":\"a <CPU>\",\"cores\":2,\"kernel\":\"linux 6\",\"load\":0.5},\"broker\":"
        ));
        assert!(json.contains(
            "\"tls\":false,\"rate\":null,\"transaction\":null,\"clients\":[{\"client\":\"ottla\",\"version\":\"1.0\",\
             \"protocol\":null,\"records\":{"
        ));
    }

    #[test]
    fn reads_text_and_numbers_of_runner() {
        let line = "{\"client\":\"ottla\",\"records\":200,\"cpu_us_per_record\":1.5e-1,\"p99_us\":null}\n";
        let fields = Fields::read(line).unwrap();
        assert_eq!((fields.text("client"), fields.number("records")), (Some("ottla"), Some(200.0)));
        assert_eq!(fields.number("cpu_us_per_record"), Some(0.15));
        assert_eq!((fields.number("p50_us"), fields.number("p99_us"), fields.number("client")), (None, None, None));
        for line in ["", "{\"a\":1", "{\"a\":1}}", "{\"a\":NaN}", "[1]", "error"] {
            assert!(Fields::read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn whole_numbers_are_written_without_fraction() {
        assert_eq!(json!([number(1.25), number(-3.0), number(f64::NAN)]).to_string(), "[1.25,-3,null]");
    }
}
