//! The error codes, and those of them that the client tells apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::ErrorCode;

/// A code that is not defined in any version of Kafka.
const UNHEARD_OF: i16 = 999;

/// Returns all codes that the client knows, and one that it does not.
fn all() -> impl Iterator<Item = ErrorCode> {
    let known = (-1..UNHEARD_OF).map(ErrorCode::new).filter(|code| code.name() != "UNKNOWN" && !code.is_ok());
    known.chain([ErrorCode::new(UNHEARD_OF)])
}

/// Returns the codes to play: all, or those that the client's source names and one of each kind of
/// the others.
pub(super) fn played(whole: bool) -> Vec<ErrorCode> {
    if whole {
        return all().collect();
    }
    let named = named_in_source();
    let (mut codes, mut kinds) = (Vec::new(), BTreeMap::new());
    for code in all() {
        if named.contains(code.name()) || code.code() == UNHEARD_OF {
            codes.push(code);
        } else {
            // For a code that is not named, only its remedy can make a difference.
            kinds.entry(format!("{:?}", code.remedy())).or_insert(code);
        }
    }
    codes.extend(kinds.into_values());
    codes
}

/// Returns the names of the codes with which the source of the client compares, not counting the
/// table of codes itself and the testkit.
fn named_in_source() -> BTreeSet<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut named = BTreeSet::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "tests" && name != "testkit" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let uses = text.split("Code::").skip(1);
                named.extend(
                    uses.map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect()),
                );
            }
        }
    }
    named
}

/// Returns the words by which the user recognizes a code: Kafka's name, or the name's meaning in
/// the words of an error's kind.
pub(super) fn words(code: ErrorCode) -> Vec<String> {
    let mut words = vec![code.to_string()];
    match code {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => words.push("does not exist".to_owned()),
        ErrorCode::UNSUPPORTED_VERSION => words.push("version".to_owned()),
        _ => {}
    }
    words
}
