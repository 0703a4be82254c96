//! Writes the results as Markdown.

use crate::{
    plan::{Case, LIMIT, OTTLA, Work},
    results::{CaseResults, Ratio, Results, Row},
    stats::Stats,
    tuning,
};

/// Writes all tables.
pub fn all(results: &Results) -> String {
    let tables: Vec<String> = results.cases.iter().map(|case| format!("{}\n", one(case))).collect();
    format!("{}\n{}{}", head(results), tables.concat(), summary(&results.cases))
}

/// Writes the machine, the broker, the rounds and their length.
pub fn head(results: &Results) -> String {
    let Results { machine, broker, rounds, seconds, .. } = results;
    format!("{}; {broker}; {rounds} rounds of {seconds} s\n", machine.line())
}

/// Writes the clients of one case.
pub fn one(results: &CaseResults) -> String {
    let case = &results.case;
    let (latency, transact) = (case.is_latency(), case.transaction().is_some());
    let mut columns = vec!["client"];
    columns.extend(if latency { &["p50 µs (min–max)", "p99 µs (min–max)", "p99.9 µs"][..] } else { &RATE });
    if transact {
        columns.extend(["commit p50 µs (min–max)", "commit p99 µs (min–max)"]);
    }
    columns.extend(["CPU µs/record", "RSS MB", "wire B/record", "batch, level"]);
    if transact {
        columns.push("protocol");
    }
    let mut out =
        format!("### {}\n\n| {} |\n|---|{}\n", case.name, columns.join(" | "), "--:|".repeat(columns.len() - 1));
    for row in &results.rows {
        let mut cells = vec![name(row)];
        if !latency {
            let rate = row.stats("records_per_s");
            cells.push(spread(rate, thousands));
            cells.push(rate.map_or("–".to_owned(), |rate| format!("{:.0} %", 100.0 * rate.iqr / rate.median)));
        }
        if latency || transact {
            cells.push(spread(row.stats("p50_us"), |n| format!("{n:.0}")));
            cells.push(spread(row.stats("p99_us"), |n| format!("{n:.0}")));
        }
        if latency {
            cells.push(median(row.stats("p999_us"), 0));
        }
        cells.push(median(row.stats("cpu_us_per_record"), 3));
        cells.push(median(row.stats("rss_peak_mb"), 0));
        cells.push(median(row.wire_bytes(), 1));
        cells.push(settings(row.client, case));
        if transact {
            cells.push(row.protocol().map_or("–".to_owned(), |version| format!("v{version}")));
        }
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    out
}

/// The columns of a case without a fixed rate.
const RATE: [&str; 2] = ["records/s (min–max)", "IQR"];

/// Returns the client's settings that are not its defaults.
fn settings(client: &str, case: &Case) -> String {
    if case.work == Work::Consume {
        return "–".to_owned();
    }
    let batch = tuning::batch_size(client, case.compression);
    let batch = batch.map_or("default".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
    let level = tuning::level(client, case.compression);
    level.map_or(batch.clone(), |level| format!("{batch}, {level}"))
}

/// Writes Ottla's ratios to the best of the others, case by case.
pub fn summary(cases: &[CaseResults]) -> String {
    let (mut out, mut latency, mut transact) = (String::new(), String::new(), String::new());
    for results in cases {
        let cpu = ratio(results.ratio("cpu_us_per_record", false));
        let [p50, p99] = ["p50_us", "p99_us"].map(|name| ratio(results.ratio(name, false)));
        if results.case.transaction().is_some() {
            let rate = ratio(results.ratio("records_per_s", true));
            transact.push_str(&format!("| {} | {rate} | {p50} | {p99} | {cpu} |\n", results.case.name));
        } else if results.case.is_latency() {
            let limit = median(results.row(LIMIT).and_then(|row| row.stats("p50_us")), 0);
            latency.push_str(&format!("| {} | {p50} | {p99} | {cpu} | {limit} |\n", results.case.name));
        } else {
            let rate = ratio(results.ratio("records_per_s", true));
            let limit = results.limit();
            let rate_of_ottla = results.row(OTTLA).and_then(|row| row.median("records_per_s"));
            let share =
                limit.zip(rate_of_ottla).map_or("–".to_owned(), |(limit, rate)| format!("{:.2}", rate / limit));
            let limit = limit.map_or("–".to_owned(), thousands);
            out.push_str(&format!("| {} | {rate} | {cpu} | {limit} | {share} |\n", results.case.name));
        }
    }
    let mut tables = Vec::new();
    if !out.is_empty() {
        tables.push(format!(
            "| case | Ottla / best other | Ottla CPU / best other's CPU | limit, records/s | Ottla / limit |\n\
             |---|--:|--:|--:|--:|\n{out}"
        ));
    }
    if !latency.is_empty() {
        tables.push(format!(
            "| case | Ottla p50 / best other's | Ottla p99 / best other's | Ottla CPU / best other's CPU | limit, p50 µs |\n\
             |---|--:|--:|--:|--:|\n{latency}"
        ));
    }
    if !transact.is_empty() {
        tables.push(format!(
            "| case | Ottla / best other | Ottla commit p50 / best other's | Ottla commit p99 / best other's \
             | Ottla CPU / best other's CPU |\n\
             |---|--:|--:|--:|--:|\n{transact}"
        ));
    }
    format!("### Ottla beside the best other\n\n{}", tables.join("\n"))
}

fn ratio(ratio: Option<Ratio>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{:.2} ({})", ratio.quotient(), ratio.who))
}

fn median(stats: Option<Stats>, digits: usize) -> String {
    stats.map_or("–".to_owned(), |stats| format!("{:.digits$}", stats.median))
}

fn spread(stats: Option<Stats>, text: impl Fn(f64) -> String) -> String {
    stats.map_or("–".to_owned(), |stats| format!("{} ({}–{})", text(stats.median), text(stats.min), text(stats.max)))
}

fn name(row: &Row) -> String {
    let mut name = row.client.to_owned();
    if let Some(version) = row.version() {
        name.push_str(&format!(" {version}"));
    }
    if !row.failures.is_empty() {
        name.push_str(&format!(": {} failed", row.failures.len()));
    }
    name
}

/// Writes a number with commas between the thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests as given;

    #[test]
    fn separates_thousands_with_commas() {
        assert_eq!([0.4, 999.0, 1e3, 1_234_567.4].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn case_has_one_row_per_client() {
        let table = one(&given::results().cases[0]);
        assert!(
            table.contains("| ottla 1.0 | 4,000,000 (3,000,000–5,000,000) | 25 % | 0.300 | 20 | 110.0 | 256 KiB |\n"),
            "{table}"
        );
        assert_eq!(table.lines().filter(|line| line.starts_with('|')).count(), 2 + 5);
    }

    #[test]
    fn transact_case_shows_commit_latencies_and_protocol() {
        let mut case = given::results().cases.remove(0);
        case.case = crate::plan::cases().into_iter().find(|case| case.name == "transact-100").unwrap();
        case.rows.truncate(1);
        case.rows[0].runs[0].protocol = Some(2);
        let row = "| ottla 1.0 | 4,000,000 (3,000,000–5,000,000) | 25 % | 100 (100–100) | 200 (200–200) | 0.300 | 20 | 110.0 \
                   | 256 KiB | v2 |\n";
        let table = one(&case);
        assert!(table.contains(row), "{table}");
        let widths: Vec<usize> = table.lines().skip(2).map(|line| line.matches('|').count()).collect();
        assert_eq!(widths, [11, 11, 11]);
        assert!(summary(&[case]).contains("| transact-100 | – | – | – | – |"));
    }

    #[test]
    fn row_shows_number_of_failures() {
        let mut case = given::results().cases.remove(1);
        case.rows[1].runs.clear();
        case.rows[1].failures.push("why".to_owned());
        assert!(one(&case).contains("| java: 1 failed | – | – | – | – | – | – | 256 KiB |\n"));
    }

    #[test]
    fn shows_settings_that_differ_from_default() {
        let cases = crate::plan::cases();
        let of = |name: &str| cases.iter().find(|case| case.name == name).map(|case| settings("ottla", case)).unwrap();
        assert_eq!(of("produce-100"), "256 KiB");
        assert_eq!(of("produce-100-lz4"), "256 KiB");
        assert_eq!(of("produce-100-gzip"), "256 KiB, 6");
        assert_eq!(of("consume-100-gzip"), "–");
    }

    #[test]
    fn rows_have_same_cells_as_header() {
        let all = all(&given::results());
        let mut cells = 0;
        for line in all.lines() {
            let here = line.matches('|').count();
            if here > 0 && cells > 0 {
                assert_eq!(here, cells, "{line}");
            }
            cells = here;
        }
    }

    #[test]
    fn summary_names_best_other_client() {
        let all = all(&given::results());
        assert!(all.contains("| produce-100 | 2.00 (rdkafka) | 0.50 (java) | 20,000,000 | 0.20 |"), "{all}");
        assert!(all.contains("| latency-2000 | 1.00 (java) | 1.00 (java) | 0.45 (java) | – |"), "{all}");
    }
}
