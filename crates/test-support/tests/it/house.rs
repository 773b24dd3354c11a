//! The shape of the source: no file imports its way back to itself, none is long, and no function is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// A module, by the names that lead to it from the crate's root.
type Module = Vec<String>;

/// The modules of one crate that are files of their own.
struct Crate {
    files: BTreeMap<Module, PathBuf>,
    /// What each uses: paths as they are written.
    uses: BTreeMap<Module, Vec<Vec<String>>>,
    /// Names that a module hands on, and the paths they come from.
    faces: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let crates =
        std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    crates.chain([root.join("bench/src")]).filter(|source| source.is_dir()).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code without comments, texts and unit tests.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let text = text.split("#[cfg(all(test, feature = \"embedded\"))]\nmod tests").next().unwrap();
    let mut code = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let mut in_text = false;
        let mut before = ' ';
        for c in line.chars() {
            if c == '"' && before != '\\' {
                in_text = !in_text;
            } else if !in_text {
                code.push(c);
            }
            before = c;
        }
        code.push('\n');
    }
    code
}

/// Every path of a `use`, with the name it is known by.
fn expand(tree: &str) -> Vec<(String, Vec<String>)> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        let itself = path.last().is_some_and(|last| last == "self") && path.len() > 1;
        if itself {
            path.pop();
        }
        let name =
            if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
        return vec![(name, path)];
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut part, mut found) = (0, String::new(), Vec::new());
    for c in inner.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !part.trim().is_empty() {
                    found.extend(expand(&format!("{}{}", prefix.trim(), part.trim())));
                }
                part.clear();
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    found
}

/// The paths from `crate`, `super` and `self` in the code that are no `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '$') {
                continue;
            }
            let end = code[at..].find(|c: char| !is_word(c) && c != ':').map_or(code.len(), |end| at + end);
            found.push(code[at..end].trim_end_matches(':').split("::").map(str::to_owned).collect());
        }
    }
    found
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut this = Self { files: BTreeMap::new(), uses: BTreeMap::new(), faces: BTreeMap::new() };
        for path in files_below(root) {
            let below = path.strip_prefix(root).unwrap().with_extension("");
            let mut module: Module = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            let code = code_of(&path);
            let (mut paths, mut others) = (Vec::new(), String::new());
            for statement in code.split_inclusive(';') {
                let line = statement.trim_start();
                let (line, handed_on) =
                    match line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")) {
                        Some(rest) => (rest, true),
                        None => (line, false),
                    };
                let Some(tree) = line.strip_prefix("use ").and_then(|tree| tree.strip_suffix(';')) else {
                    others.push_str(statement);
                    continue;
                };
                let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
                for (name, path) in expand(&tree) {
                    if handed_on {
                        this.faces.entry(module.clone()).or_default().insert(name, path);
                    } else {
                        paths.push(path);
                    }
                }
            }
            paths.extend(inline_paths(&others));
            this.uses.insert(module.clone(), paths);
            this.files.insert(module, path);
        }
        this
    }

    /// The file in which what a path means is defined, as seen from `module`.
    fn resolve(&self, module: &Module, path: &[String], depth: u32) -> Option<Module> {
        let (mut at, mut rest): (Module, &[String]) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module.clone(), path),
            first if self.files.contains_key(&[module.clone(), vec![first.to_owned()]].concat()) => {
                (module.clone(), path)
            }
            _ => return None,
        };
        while rest.first().is_some_and(|part| part == "super") {
            at.pop();
            rest = &rest[1..];
        }
        while let Some(part) = rest.first() {
            let inner = [at.clone(), vec![part.clone()]].concat();
            if self.files.contains_key(&inner) {
                at = inner;
                rest = &rest[1..];
                continue;
            }
            let handed_on = self.faces.get(&at).and_then(|face| face.get(part)).filter(|_| depth < 8);
            return handed_on.and_then(|path| self.resolve(&at, path, depth + 1)).or(Some(at));
        }
        Some(at)
    }

    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let arrows = self.uses.iter().map(|(module, paths)| {
            let to = paths.iter().filter_map(|path| self.resolve(module, path, 0));
            (module, to.filter(|to| to != module && self.files.contains_key(to)).collect())
        });
        arrows.collect()
    }

    /// The files from which a way of imports leads back to them.
    fn circles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let reached = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                for to in arrows.get(&module).into_iter().flatten() {
                    if seen.insert(to.clone()) {
                        next.push(to.clone());
                    }
                }
            }
            seen
        };
        let ways: BTreeMap<&Module, BTreeSet<Module>> =
            arrows.keys().map(|module| (*module, reached(module))).collect();
        let back = ways.iter().filter(|(module, way)| way.contains(**module));
        back.map(|(module, _)| {
            let by = arrows[*module].iter().filter(|to| ways[to].contains(*module));
            let by: Vec<String> = by.map(|to| to.join("/")).collect();
            format!("{} (by {})", self.files[*module].display(), by.join(", "))
        })
        .collect()
    }
}

#[test]
fn no_file_imports_its_way_back_to_itself() {
    let circles: Vec<String> = sources().iter().flat_map(|source| Crate::read(source).circles()).collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    let long = sources().into_iter().flat_map(|source| files_below(&source)).filter_map(|path| {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        (lines > MAX_FILE_LINES).then(|| format!("{}: {lines} lines", path.display()))
    });
    let long: Vec<String> = long.collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The code is formatted, so a function ends where a closing brace stands under its beginning.
fn long_functions(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let words = line.split_whitespace();
        let mut words =
            words.skip_while(|word| word.starts_with("pub") || ["async", "const", "unsafe"].contains(word));
        if words.next() != Some("fn") {
            continue;
        }
        // A method without a body ends with its declaration.
        let opens =
            lines[at..].iter().find(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        if !opens.is_some_and(|line| line.ends_with('{')) {
            continue;
        }
        let end = lines[at..].iter().position(|line| *line == format!("{indent}}}"));
        if let Some(length) = end.map(|end| end + 1).filter(|length| *length > MAX_FUNCTION_LINES) {
            long.push(format!("{}:{}: {length} lines: {}", path.display(), at + 1, line.trim()));
        }
    }
    long
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let files = sources().into_iter().flat_map(|source| files_below(&source));
    let long: Vec<String> = files.flat_map(|path| long_functions(&path)).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_circle_of_two_files_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod one;\nmod two;\nmod three;\npub use one::One;\n");
    write("one.rs", "use crate::two::{Two, self};\npub struct One;\n");
    write("two.rs", "use crate::three::Three;\nfn two() -> crate::One { crate::One }\n");
    write("three.rs", "/// [`crate::one::One`]\npub struct Three;\n");
    let circles = Crate::read(folder.path()).circles();
    assert_eq!(circles.len(), 2, "{circles:?}");
    assert!(
        circles[0].ends_with("one.rs (by two)") && circles[1].ends_with("two.rs (by one)"),
        "{circles:?}"
    );
}
