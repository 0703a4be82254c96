//! Finds the imports between the files of `src`; a re-export is followed to the file that defines
//! the item.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A path of modules below the crate, such as `["consumer", "fetch", "session"]`.
pub(crate) type Module = Vec<String>;

/// A `use` tree without its braces: the segments, and the name that is bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    pub(crate) name: String,
}

pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) module: Module,
    pub(crate) code: String,
}

/// The files of a crate, by their modules.
pub(crate) struct Imports {
    sources: BTreeMap<Module, Source>,
    /// The re-exports of each module: name to absolute path.
    exports: BTreeMap<Module, Vec<(String, Module)>>,
}

impl Imports {
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        let sources: BTreeMap<Module, Source> =
            sources.into_iter().map(|source| (source.module.clone(), source)).collect();
        let mut it = Self { sources, exports: BTreeMap::new() };
        let mut exports = BTreeMap::new();
        for (module, source) in &it.sources {
            let mut of_module = Vec::new();
            for (is_public, import) in uses(&source.code) {
                if let Some(path) = it.absolute(module, &import.path).filter(|_| is_public) {
                    of_module.push((import.name, path));
                }
            }
            exports.insert(module.clone(), of_module);
        }
        it.exports = exports;
        it
    }

    /// Returns the files that a file's code names, except those that it only re-exports from.
    pub(crate) fn of(&self, source: &Source) -> BTreeSet<Module> {
        let mut named: Vec<Vec<String>> =
            uses(&source.code).into_iter().filter(|(public, _)| !public).map(|(_, import)| import.path).collect();
        named.extend(inline_paths(&source.code));
        let mut files = BTreeSet::new();
        for path in named {
            if let Some(file) = self.absolute(&source.module, &path).and_then(|path| self.file_of(&path, 0))
                && file != source.module
            {
                files.insert(file);
            }
        }
        files
    }

    /// Returns the path from the crate's root; the first segment says where a path begins.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => {
                let supers = path.iter().take_while(|segment| *segment == "super").count();
                let mut base = module.get(..module.len().checked_sub(supers)?)?.to_vec();
                base.extend(path[supers..].iter().cloned());
                return Some(base);
            }
            _ => {
                let mut child = module.clone();
                child.push(first.clone());
                if !self.sources.contains_key(&child) {
                    return None;
                }
                child
            }
        };
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// Returns the file that defines the item with this path.
    fn file_of(&self, path: &Module, depth: usize) -> Option<Module> {
        let known = (0..=path.len()).rev().find(|length| self.sources.contains_key(&path[..*length]))?;
        let module = path[..known].to_vec();
        if let Some(name) = path.get(known).filter(|_| depth < 8)
            && let Some((_, target)) = self.exports[&module].iter().find(|(exported, _)| exported == name)
        {
            return self.file_of(target, depth + 1);
        }
        Some(module)
    }

    /// Returns groups of two or more files that all reach each other by imports within their room.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<PathBuf>> {
        let graph: BTreeMap<&Module, BTreeSet<Module>> = self
            .sources
            .values()
            .map(|source| {
                let mut files = self.of(source);
                files.retain(|file| file.first() == source.module.first());
                (&source.module, files)
            })
            .collect();
        let reach = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                for file in graph.get(&module).into_iter().flatten() {
                    if seen.insert(file.clone()) {
                        next.push(file.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            graph.keys().map(|module| (*module, reach(module))).collect();
        let mut circles: BTreeSet<BTreeSet<PathBuf>> = BTreeSet::new();
        for (module, files) in &reached {
            if files.contains(*module) {
                let circle = files.iter().filter(|file| reached.get(file).is_some_and(|back| back.contains(*module)));
                circles.insert(circle.map(|file| self.sources[file].path.clone()).collect());
            }
        }
        circles.into_iter().collect()
    }
}

/// Returns the module of a file below `src`.
pub(crate) fn module_of(below_src: &Path) -> Module {
    let mut module: Module =
        below_src.with_extension("").iter().map(|part| part.to_str().expect("a name in UTF-8").to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// Returns all imports of some code, each with true if it is public.
pub(crate) fn uses(code: &str) -> Vec<(bool, Import)> {
    let mut out = Vec::new();
    for (is_public, text) in use_statements(code) {
        let mut imports = Vec::new();
        tree(text, &[], &mut imports);
        out.extend(imports.into_iter().map(|import| (is_public, import)));
    }
    out
}

/// Returns the trees of all `use` statements, each with true if it is public.
fn use_statements(code: &str) -> Vec<(bool, &str)> {
    let mut out = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("use ").map(|at| from + at) {
        from = at + 4;
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        if !line.is_empty() && !line.starts_with("pub") {
            continue;
        }
        let Some(end) = code[from..].find(';') else { break };
        out.push((!line.is_empty(), &code[from..from + end]));
        from += end;
    }
    out
}

fn tree(text: &str, before: &[String], out: &mut Vec<Import>) {
    let text = text.trim();
    if let Some(group) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    tree(&group[start..at], before, out);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find("::").unwrap_or(text.len());
    let segment = text[..end].trim();
    if end < text.len() {
        let mut path = before.to_vec();
        path.push(segment.to_owned());
        return tree(&text[end + 2..], &path, out);
    }
    let (segment, alias) = segment.split_once(" as ").map_or((segment, None), |(name, alias)| (name, Some(alias)));
    if segment.is_empty() {
        return;
    }
    let mut path = before.to_vec();
    if segment != "self" || path.is_empty() {
        path.push(segment.to_owned());
    }
    let name = alias.unwrap_or_else(|| path.last().expect("a segment")).trim().to_owned();
    out.push(Import { path, name });
}

/// Returns the paths that begin with `crate`, `self` or `super` outside of imports.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let uses: Vec<_> = use_statements(code).into_iter().map(|(_, text)| text.as_bytes().as_ptr_range()).collect();
    let mut out = Vec::new();
    for head in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(head) {
            let before = code[..at].chars().next_back();
            let here = code[at..].as_ptr();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                || uses.iter().any(|text| text.contains(&here))
            {
                continue;
            }
            let text: String =
                code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            out.push(text.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect());
        }
    }
    out
}
