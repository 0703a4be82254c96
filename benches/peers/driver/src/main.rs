//! Compares Kafka clients: builds their runners, runs them in turn, and prints their results.

mod args;
mod child;
mod data;
mod machine;
mod measure;
mod plan;
mod results;
mod runner;
mod stats;
mod svg;
mod table;
mod tuning;

use std::{fs, path::Path, process::ExitCode};

use args::{Args, Broker};
use machine::Machine;
use measure::Bench;
use results::Results;
use runner::Places;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => {
            // If the stream is closed, the text cannot be printed anywhere.
            let _ = why.print();
            return if why.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if everything was measured.
fn run(mut args: Args) -> Result<bool, String> {
    let places = Places::look()?;
    let out = args.out.clone().unwrap_or_else(|| places.default_out());
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut results = Results {
        machine: Machine::look(),
        broker: match &args.broker {
            Broker::Sink => "a sink on loopback that answers at once".to_owned(),
            Broker::Launched => "Apache Kafka on loopback".to_owned(),
            Broker::At(address) => format!("Kafka at {address}"),
        },
        rounds: args.rounds,
        seconds: args.timed.as_secs_f64(),
        cases: Vec::new(),
        left_out: Vec::new(),
    };
    eprintln!("building the broker");
    // The sink is built in any case, because its package has the runner that creates topics.
    places.build_sink()?;
    if args.broker == Broker::Launched {
        places.build_launcher()?;
    }
    args.clients.retain(|client| {
        eprintln!("building {}", client.name);
        let built = places.build(client);
        built.map_err(|why| results.left_out.push((client.name, why))).is_ok()
    });
    say_left_out(&results);
    if args.clients.is_empty() {
        return Err("no client is left".to_owned());
    }
    println!("{}", table::head(&results));
    let bench = Bench { places: &places, args: &args, out: &out };
    for case in &args.cases {
        let found = bench.case(case)?;
        println!("{}", table::one(&found));
        results.cases.push(found);
        // The files are written after every case, so that an interrupted comparison leaves the
        // results so far.
        write(&out.join("results.json"), &results.to_json().to_string())?;
        write(&out.join("results.svg"), &svg::draw(&results))?;
        write(&out.join("results.md"), &table::all(&results))?;
    }
    println!("{}", table::summary(&results.cases));
    eprintln!("{} is written, and results.svg and results.md beside it", out.join("results.json").display());
    say_left_out(&results);
    let mut whole = results.left_out.is_empty();
    for (case, client, why) in results.failures() {
        whole = false;
        eprintln!("failed: {client} in {case}: {why}");
    }
    Ok(whole)
}

fn say_left_out(results: &Results) {
    for (client, why) in &results.left_out {
        eprintln!("left out: {client}: {why}");
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
