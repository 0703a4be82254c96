//! Starts a real Apache Kafka on loopback and keeps it until Ctrl-C or the end of standard input.
//!
//! ```text
//! cargo run -p protocol-tests --bin kafka -- [--version 4.4.0] [--nodes 1] [--config key=value]…
//!     [--heap-mb 1024] [--secured]
//! ```
//! The only line on standard output is `bootstrap.servers=127.0.0.1:PORT,…`, written when every
//! node answers; all other output goes to standard error, including the addresses of the secured
//! listeners (`protocol_tests::secured`). Data and logs are removed at the end.

#[cfg(unix)]
mod unix {
    use std::io::Write;
    use std::process::ExitCode;

    use clap::{Arg, ArgAction, Command, builder::RangedU64ValueParser, value_parser};
    use protocol_tests::arguments::{self, option, pair, value, values, version};
    use protocol_tests::{Builder, Error, Kafka};
    use tokio::io::AsyncReadExt;
    use tokio::signal::unix::{SignalKind, signal};

    fn parse() -> Result<Builder, clap::Error> {
        let command = Command::new("kafka")
            .about(
                "Starts Apache Kafka on loopback, prints bootstrap.servers=..., and ends with Ctrl-C or when stdin closes.",
            )
            .args([
                version(),
                option("nodes", "N", "number of nodes")
                    .default_value("1")
                    .value_parser(RangedU64ValueParser::<usize>::new()),
                option("config", "KEY=VALUE", "a setting of the brokers").action(ArgAction::Append).value_parser(pair),
                option("heap-mb", "MB", "heap of each node's JVM in MiB").default_value("1024").value_parser(value_parser!(u32)),
                Arg::new("secured").long("secured").help("adds the secured listeners").action(ArgAction::SetTrue),
            ]);
        let given = &command.try_get_matches()?;
        // For programs and benchmarks rather than tests: the JVM options are those of Kafka's own
        // scripts.
        let mut builder = Kafka::builder()
            .announce(false)
            .nodes(value(given, "nodes"))
            .heap_mb(value(given, "heap-mb"))
            .jvm_args(&["-server", "-XX:+UseG1GC"])
            .version(&value::<String>(given, "version"));
        for (key, value) in values::<(String, String)>(given, "config") {
            builder = builder.config(&key, &value);
        }
        Ok(if given.get_flag("secured") { builder.secured() } else { builder })
    }

    /// Runs until standard input ends or a signal arrives.
    async fn run(builder: Builder) -> Result<(), Error> {
        let io = |source| Error::Io { what: "waiting for signals".into(), source };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(io)?;
        let work = async {
            let kafka = builder.start().await?;
            let mut out = std::io::stdout();
            writeln!(out, "bootstrap.servers={}", kafka.bootstrap())
                .and_then(|()| out.flush())
                .map_err(|source| Error::Io { what: "writing the address".into(), source })?;
            for name in ["TLS", "MUTUAL", "SASL", "BOTH"] {
                if let Some(bootstrap) = kafka.bootstrap_of(name) {
                    eprintln!("{name}={bootstrap}");
                }
            }
            eprintln!(
                "Kafka {} runs; Ctrl-C ends it. Log: {}",
                kafka.version().as_str(),
                kafka.node(0).log().display()
            );
            let mut stdin = tokio::io::stdin();
            let mut ignored = [0; 256];
            // Input is ignored; only its end or a read error counts.
            while matches!(stdin.read(&mut ignored).await, Ok(1..)) {}
            Ok(())
        };
        // Whichever completes first drops the cluster, which ends it.
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
        }
    }

    pub(crate) fn main() -> ExitCode {
        let builder = match parse() {
            Ok(builder) => builder,
            Err(why) => return arguments::exit(&why, 2),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("no runtime: {error}");
                return ExitCode::FAILURE;
            }
        };
        let result = runtime.block_on(run(builder));
        // The read of standard input may still block its thread; the runtime does not wait for it.
        runtime.shutdown_background();
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("this launcher needs Unix; Kafka's own scripts start a broker on Windows");
    std::process::ExitCode::FAILURE
}
