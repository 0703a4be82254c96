//! Compares the code with `docs/DESIGN.md` (the rooms that each room may use), and holds files that
//! are marked `Sans-IO.` to that.

mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the lines of the fenced block of that name in docs/DESIGN.md.
fn block(name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/DESIGN.md")).expect("docs/DESIGN.md is there");
    let lines: Vec<String> = text
        .lines()
        .skip_while(|line| *line != format!("```{name}"))
        .skip(1)
        .take_while(|line| *line != "```")
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    assert!(!lines.is_empty(), "docs/DESIGN.md has a block ```{name}");
    lines
}

/// Collects all Rust files below a folder, without tests: a test may use any room.
fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" {
            files(&path, out);
        } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
            out.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut out = Vec::new();
    files(&root().join("src"), &mut out);
    assert!(out.len() > 20, "src/ was found");
    out
}

/// Returns the code of a file, without comments and without `#[cfg(test)] mod … { }`.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ")) {
            // rustfmt closes the module at the indentation at which it was opened.
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let inline = lines.next().is_some_and(|opened| opened.trim_end().ends_with('{'));
            while inline && lines.next().is_some_and(|line| line.trim_end() != close) {}
            continue;
        }
        let line = line.split("//").next().unwrap_or_default();
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Returns the rooms that code names: the first segment after every `crate::`, or that of each
/// element of a group.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut word, mut fresh) = (0, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => fresh = true,
                    c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                    c if c.is_whitespace() => continue,
                    _ => fresh = false,
                }
                if (!fresh || c == ',') && !word.is_empty() {
                    found.insert(std::mem::take(&mut word));
                }
            }
            if !word.is_empty() {
                found.insert(word);
            }
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).expect("below src");
    let first = below.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn parser_recognises_every_form_of_import() {
    let code =
        "use crate::{\n    cluster::{Client, Lane},\n    error::Error, wire,\n};\nfn f() -> crate::record::Record {}\n";
    let rooms: Vec<_> = rooms_named(code).into_iter().collect();
    assert_eq!(rooms, ["cluster", "error", "record", "wire"]);
}

#[test]
fn modules_use_only_allowed_modules() {
    let allowed: BTreeMap<String, BTreeSet<String>> = block("arrows")
        .iter()
        .map(|line| {
            let (room, below) = line.split_once("->").expect("room -> rooms");
            (room.trim().to_owned(), below.split_whitespace().map(str::to_owned).collect())
        })
        .collect();
    // The plan itself has no circle, and no path between the producer and the consumer.
    fn reaches(allowed: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
        allowed.get(from).is_some_and(|below| below.iter().any(|next| next == to || reaches(allowed, next, to)))
    }
    for room in allowed.keys() {
        assert!(!reaches(&allowed, room, room), "{room} is above itself");
    }
    assert!(!reaches(&allowed, "producer", "consumer") && !reaches(&allowed, "consumer", "producer"));

    let mut wrong = Vec::new();
    for path in sources() {
        let room = room_of(&path);
        if room == "lib" {
            continue;
        }
        let Some(below) = allowed.get(&room) else {
            wrong.push(format!("{}: room {room} is not in docs/DESIGN.md", path.display()));
            continue;
        };
        for named in rooms_named(&code(&path)) {
            if named != room && !below.contains(&named) {
                wrong.push(format!("{}: {room} uses {named}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that docs/DESIGN.md does not have:\n{}", wrong.join("\n"));
}

/// A file with `Sans-IO.` in its module comment only computes: its caller passes the bytes, the
/// time and the seed.
#[test]
fn sans_io_files_use_no_io_or_clock() {
    let forbidden =
        ["tokio", "std::net", "std::fs", "std::thread", "Instant::now", "SystemTime::now", "rand::rng(", "async "];
    let (mut wrong, mut files) = (Vec::new(), 0);
    for path in sources() {
        let text = fs::read_to_string(&path).expect("a source file");
        if !text.lines().take_while(|line| line.starts_with("//!")).any(|line| line == "//! Sans-IO.") {
            continue;
        }
        files += 1;
        let code = code(&path);
        let words = forbidden.iter().filter(|word| code.contains(**word));
        wrong.extend(words.map(|word| format!("{} has {word}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files >= 125, "{files} files are Sans-IO: state machines keep their mark");
}

/// Collects all Rust files below a folder.
fn all_files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn tests_named_in_protocol_readme_exist() {
    let text = fs::read_to_string(root().join("protocol-tests/README.md")).expect("protocol-tests/README.md is there");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    // Finds the names of tests: the words in backticks in a row's last cell that contain `::`.
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit_once("| ")).map(|(_, cell)| cell);
    let named: BTreeSet<(&str, &str)> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter_map(|name| name.split_once("::")).collect();
    assert!(named.len() > 50, "{} tests are named", named.len());
    let mut files = Vec::new();
    for folder in ["src", "protocol-tests/tests"] {
        all_files(&root().join(folder), &mut files);
    }
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            (stem.to_owned(), fs::read_to_string(path).expect("a source file"))
        })
        .collect();
    let is_there = |(file, test): &(&str, &str)| {
        texts.iter().any(|(stem, text)| stem == file && text.contains(&format!("fn {test}(")))
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "protocol-tests/README.md names tests that do not exist: {missing:?}");
}

/// Log lines go through `log::event`, which puts the client's id, its role and its group on each.
#[test]
fn every_event_uses_macro_naming_client() {
    let mut wrong = Vec::new();
    for path in sources() {
        let room = room_of(&path);
        if ["log", "testkit"].contains(&room.as_str()) {
            continue;
        }
        let code = code(&path);
        for level in ["error", "warn", "info", "debug", "trace", "event"] {
            if code.contains(&format!("tracing::{level}!")) {
                wrong.push(format!("{}: tracing::{level}! in place of log::event!", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Circles of files that import each other, each with the reason why it stays. The list only
/// shrinks: to a reader, such files are one file.
const CIRCLES: &[(&[&str], &str)] = &[
    (
        &["cluster/connection.rs", "cluster/connection_task.rs"],
        "the connection and its driver share one lock; callers hold the one, the task runs the other",
    ),
    (&["config/ignored.rs", "config/known.rs", "config/mod.rs"], "the table, and two of its lists, name the same type"),
    (&["consumer/api/builder.rs", "consumer/api/consumer.rs"], "a builder and what it builds"),
    (
        &["consumer/api/rebalance_listener.rs", "consumer/background/shared.rs"],
        "a revoked partition commits through the consumer that calls the listener",
    ),
    (
        &[
            "consumer/group/assignor/constrained.rs",
            "consumer/group/assignor/general.rs",
            "consumer/group/assignor/sticky.rs",
        ],
        "one strategy in three files",
    ),
    (
        &["producer/batch_results.rs", "producer/revocable_batch.rs"],
        "results hold the state by which their batch is revoked",
    ),
    (&["producer/batch_shared.rs", "producer/reports.rs"], "streams of reports give buffer memory back"),
    (&["producer/partition_queue/completion.rs", "producer/partition_queue.rs"], "one queue in two files"),
    (
        &["producer/topic_table.rs", "producer/topics/waiting.rs", "producer/topics.rs"],
        "topics, their table and their waiting records are one structure",
    ),
    (&["security/aws/credentials.rs", "security/aws/sources.rs"], "credentials and their sources"),
    (&["security/resolve/mod.rs", "security/resolve/tls.rs"], "one table of properties in two files"),
    (
        &["security/tls/failure/certificate.rs", "security/tls/verify.rs"],
        "a failure names the verification that failed",
    ),
    (&["testkit/state/mod.rs", "testkit/state/sink.rs"], "the sink is a mode of the state"),
    (
        &["wire/batch/legacy.rs", "wire/batch/reader.rs", "wire/batch/records.rs"],
        "both record formats behind one reader",
    ),
    (&["wire/codec/compression.rs", "wire/codec/mod.rs"], "one dispatch in two files"),
    (
        &["worker/schedule/job.rs", "worker/schedule/mod.rs", "worker/schedule/partition.rs"],
        "one state machine in three files",
    ),
    (&["worker/schedule/rules.rs", "worker/settings.rs"], "settings and the rules made from them"),
];

#[test]
fn files_of_a_room_import_in_one_direction() {
    let src = root().join("src");
    let sources = sources()
        .into_iter()
        .filter(|path| !path.starts_with(src.join("wire/messages")))
        .map(|path| {
            let below = path.strip_prefix(&src).expect("below src").to_owned();
            imports::Source { module: imports::module_of(&below), code: code(&path), path: below }
        })
        .collect();
    let found = imports::Imports::new(sources).circles();
    let allowed: BTreeSet<BTreeSet<PathBuf>> =
        CIRCLES.iter().map(|(files, _)| files.iter().map(PathBuf::from).collect()).collect();
    let new: Vec<_> = found.iter().filter(|circle| !allowed.contains(*circle)).collect();
    assert!(new.is_empty(), "files that import each other in a circle: {new:#?}");
    let gone: Vec<_> = allowed.iter().filter(|circle| !found.contains(circle)).collect();
    assert!(gone.is_empty(), "these circles are gone: take them off the list: {gone:#?}");
}

#[test]
fn imports_are_followed_through_re_exports() {
    let source = |path: &str, code: &str| imports::Source {
        path: path.into(),
        module: imports::module_of(Path::new(path)),
        code: code.to_owned(),
    };
    let files = |circles: Vec<BTreeSet<PathBuf>>| circles.into_iter().map(|files| files.len()).collect::<Vec<_>>();
    let room = [
        ("room/mod.rs", "mod a; mod b;\npub(crate) use a::{A, Other as B};\n"),
        ("room/a.rs", "use super::b::C;\npub struct A;\n"),
        ("room/b.rs", "use crate::room::A;\npub struct C;\n"),
    ];
    let circles = |room: &[(&str, &str)]| {
        files(imports::Imports::new(room.iter().map(|(path, code)| source(path, code)).collect()).circles())
    };
    assert_eq!(circles(&room), [2], "a and b, and not the file that re-exports");
    let inline = [room[0], room[1], ("room/b.rs", "fn f() -> super::A {}\n")];
    assert_eq!(circles(&inline), [2], "a path without an import counts");
    let apart = [room[0], room[1], ("room/b.rs", "pub struct C;\n")];
    assert!(circles(&apart).is_empty());
}
