//! Writes `src/wire/messages/` from the message schemas inside Kafka's own jar of clients.
//!
//! ```sh
//! cargo run -p generator -- write                    # regenerates every file
//! cargo run -p generator -- check                    # says which files differ from what would be written
//! cargo run -p generator -- news --version 4.5.0     # prints what another version's schemas add
//! ```

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Writes Ottla's messages from the schemas inside Kafka's own jar.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Regenerates every file under src/wire/messages/.
    Write,
    /// Compares the files with the generated ones, and fails if they differ.
    Check,
    /// Prints what another version of Kafka adds: APIs, versions and fields.
    News {
        /// The version of kafka-clients to compare with.
        #[arg(long)]
        version: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Write => generator::write().map(|count| println!("{count} files written")),
        Command::Check => generator::check().and_then(|differing| match differing.as_slice() {
            [] => Ok(()),
            names => Err(format!("these files differ from what is generated: {}", names.join(", ")).into()),
        }),
        Command::News { version } => {
            generator::news(&version).map(|lines| lines.iter().for_each(|line| println!("{line}")))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
