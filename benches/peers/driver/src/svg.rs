//! Draws the results as SVG: for every case a group of bars, one for every client.

use crate::{
    results::{CaseResults, Results, Row},
    stats::Stats,
    table::thousands,
};

const WIDTH: f64 = 900.0;
/// Position of the bars' left ends, and maximum length of a bar.
const LEFT: f64 = 130.0;
const LONGEST: f64 = 560.0;
const BAR: f64 = 18.0;
const HEAD: f64 = 34.0;

/// Draws all cases. Every case has a scale of its own: its longest bar is its highest median.
pub fn draw(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 44.0;
    for case in &results.cases {
        y = group(&mut body, case, y);
    }
    let note = y + 24.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\">Kafka clients: median of {rounds} rounds; the line: lowest to \
         highest</text>\n{body}<text x=\"16\" y=\"{note}\" fill=\"#555\">{machine}; {broker}</text>\n</svg>\n",
        height = note + 16.0,
        rounds = results.rounds,
        machine = escape(&results.machine.line()),
        broker = escape(&results.broker),
    )
}

/// Draws one case from `y` on; returns the position of the next one.
fn group(out: &mut String, results: &CaseResults, mut y: f64) -> f64 {
    let (number, unit) = if results.case.is_latency() {
        ("p99_us", "p99 in µs, less is better")
    } else {
        ("records_per_s", "records/s")
    };
    let name = escape(&results.case.name);
    out.push_str(&format!("<text x=\"16\" y=\"{}\" font-weight=\"bold\">{name}: {unit}</text>\n", y + 20.0));
    y += HEAD - 6.0;
    let bars: Vec<(&Row, Option<Stats>)> = results.rows.iter().map(|row| (row, row.stats(number))).collect();
    let longest = bars.iter().filter_map(|(_, stats)| Some((*stats)?.max)).fold(0.0, f64::max);
    for (row, stats) in bars {
        let middle = y + BAR / 2.0;
        out.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            middle + 4.0,
            escape(row.client)
        ));
        let label = match stats {
            Some(stats) if longest > 0.0 => {
                let [width, from, to] = [stats.median, stats.min, stats.max].map(|n| n / longest * LONGEST);
                out.push_str(&format!(
                    "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>\n\
                     <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222\"/>\n",
                    y + 2.0,
                    BAR - 4.0,
                    colour(row.client),
                    LEFT + from,
                    LEFT + to,
                ));
                (LEFT + to + 8.0, thousands(stats.median))
            }
            _ => (LEFT, "nothing measured".to_owned()),
        };
        out.push_str(&format!("<text x=\"{:.1}\" y=\"{}\">{}</text>\n", label.0, middle + 4.0, label.1));
        y += BAR;
    }
    y + 10.0
}

fn colour(client: &str) -> &'static str {
    match client {
        "ottla" => "#c8501e",
        "ottla-batch" | "ottla-recv" => "#e59a6f",
        "rdkafka" => "#2f6fa8",
        "krafka" => "#6b4fa0",
        "franz-go" => "#2a9187",
        "java" => "#7a8a3a",
        _ => "#bbb",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests as given;

    #[test]
    fn draws_bar_for_each_client_and_case() {
        let svg = draw(&given::results());
        assert_eq!(svg.matches("<rect x=").count(), 5 + 2);
        assert_eq!(svg.matches("<line ").count(), 5 + 2);
        assert!(svg.contains("4,000,000") && svg.contains("p99 in µs"));
        assert!(svg.contains("a &lt;CPU&gt;") && !svg.contains("<CPU>"));
    }

    #[test]
    fn bar_width_is_proportional_to_value() {
        let svg = draw(&given::results());
        // The highest is the limit's 20 million; the other is 4 million.
        assert!(svg.contains("width=\"560.0\"") && svg.contains("width=\"112.0\""), "{svg}");
    }

    #[test]
    fn draws_no_bar_without_measurement() {
        let mut results = given::results();
        results.cases.truncate(1);
        results.cases[0].rows.iter_mut().for_each(|row| row.runs.clear());
        let svg = draw(&results);
        assert_eq!((svg.matches("<rect x=").count(), svg.matches("nothing measured").count()), (0, 5));
        assert!(!svg.contains("NaN"));
    }
}
