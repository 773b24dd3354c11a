//! The shape of the source: no file imports its way back to itself, none is long, and no function is. And the
//! pages about tests: what they name exists.

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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn sources() -> Vec<PathBuf> {
    let root = root();
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

/// The paths from `crate`, `super` and `self` in the code that are not a `use`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
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

/// Every source file of the repository, tests included.
fn all_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = sources().iter().flat_map(|source| files_below(source)).collect();
    for package in std::fs::read_dir(root().join("crates")).unwrap() {
        let tests = package.unwrap().path().join("tests");
        if tests.is_dir() {
            files.extend(files_below(&tests));
        }
    }
    files.extend(files_below(&root().join("tests/neighbour/src")));
    files
}

/// The words that stand behind `keyword` and a blank.
fn words_behind<'t>(text: &'t str, keyword: &str) -> Vec<&'t str> {
    let begin = format!("{keyword} ");
    let found = text.match_indices(&begin).filter(|(at, _)| !text[..*at].ends_with(is_word));
    let words = found.map(|(at, _)| {
        let rest = &text[at + begin.len()..];
        &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
    });
    words.collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `a::{b, c}` is two names.
fn spelled_out(name: &str) -> Vec<String> {
    let inner = name.rfind('{').and_then(|from| Some((from, from + name[from..].find('}')?)));
    let Some((from, to)) = inner else { return vec![name.to_owned()] };
    let each = name[from + 1..to].split(',').map(str::trim);
    each.flat_map(|one| spelled_out(&format!("{}{one}{}", &name[..from], &name[to + 1..]))).collect()
}

/// The tests, and modules of tests, that the tables of a page name, without what leads to them.
fn tests_named(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let spans = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names = spans.flat_map(spelled_out).filter_map(|name| {
        let last = name.rsplit("::").next()?;
        let word = last.trim_end_matches('*');
        let is_name = !word.is_empty()
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        // A word alone is not a test: a field, an option.
        (is_name && (name.contains("::") || word.matches('_').count() > 1)).then(|| last.to_owned())
    });
    names.collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut known = BTreeSet::new();
    for file in all_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        known.extend(["fn", "mod"].iter().flat_map(|word| words_behind(&text, word)).map(str::to_owned));
    }
    for (name, at_least) in [("docs/promises.md", 30), ("docs/faults.md", 250)] {
        let named = tests_named(&std::fs::read_to_string(root().join(name)).unwrap());
        assert!(named.len() >= at_least, "{name} names {} tests", named.len());
        let exists = |test: &String| match test.strip_suffix('*') {
            Some(begin) => known.iter().any(|known| known.starts_with(begin)),
            None => known.contains(test),
        };
        let missing: Vec<&String> = named.iter().filter(|test| !exists(test)).collect();
        assert!(missing.is_empty(), "{name} names tests that do not exist: {missing:?}");
    }
}

/// The numbers behind a letter in the first column of a page's tables, in their order.
fn numbers(page: &str, letter: &str) -> Vec<usize> {
    let begin = format!("| {letter}-");
    let rows = page.lines().filter_map(|line| line.strip_prefix(begin.as_str()));
    rows.map(|row| row.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// The rows of tables with a column `tests` that name none.
fn rows_without_a_test(page: &str) -> Vec<&str> {
    let (mut has_tests, mut found) = (false, Vec::new());
    for line in page.lines() {
        if !line.starts_with('|') {
            has_tests = false;
        } else if line.split('|').any(|column| column.trim() == "tests") {
            has_tests = true;
        } else if has_tests && !line.starts_with("|-") && tests_named(line).is_empty() {
            found.push(line);
        }
    }
    found
}

#[test]
fn no_promise_is_left_out_or_has_no_test() {
    let page = std::fs::read_to_string(root().join("docs/promises.md")).unwrap();
    for (letter, count) in [("L", 46), ("F", 26)] {
        assert_eq!(numbers(&page, letter), (1..=count).collect::<Vec<_>>(), "the rows {letter}-");
    }
    let bare = rows_without_a_test(&page);
    assert!(bare.is_empty(), "{}", bare.join("\n"));
    let example = "| no. | promise | tests |\n|---|---|---|\n| L-01 | it `works` | `it_works_so_well` |\n| L-02 | it does | |\n";
    assert_eq!(
        (numbers(example, "L"), rows_without_a_test(example)),
        (vec![1, 2], vec!["| L-02 | it does | |"])
    );
}

/// References in a comment: `N-17`, and `R22` where the comment begins with it.
fn references(comment: &str) -> Vec<&str> {
    let is_reference = |word: &&str| {
        let number = word.trim_start_matches(|c: char| c.is_ascii_uppercase()).trim_start_matches('-');
        let is_short = word.len() - number.len() == 1;
        let is_dashed = word.len() - number.len() == 2 && word.contains('-') && number.len() == 2;
        (is_short || is_dashed) && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    };
    let words = || comment.split(|c: char| !is_word(c) && c != '-');
    let dashed = words().filter(|word| word.contains('-')).filter(is_reference);
    // A letter and a number may be anything (S3) where they do not begin.
    let first = words().next().filter(is_reference).filter(|word| !word.contains('-'));
    dashed.chain(first).collect()
}

#[test]
fn every_reference_in_a_test_is_explained() {
    let page = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (scenarios, faults) = (page("docs/scenarios.md"), page("docs/faults.md"));
    let mut seen = 0;
    for file in all_files().iter().filter(|file| file.iter().any(|part| part == "tests")) {
        let text = std::fs::read_to_string(file).unwrap();
        let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix("///"));
        for reference in comments.map(str::trim).flat_map(references) {
            seen += 1;
            let explained = if reference.contains('-') { &scenarios } else { &faults };
            assert!(
                explained.contains(&format!("| {reference} ")),
                "{} refers to {reference}, which no list explains",
                file.display()
            );
        }
    }
    assert!(seen > 60, "{seen} references");
}

#[test]
fn references_and_names_are_distinguished_from_other_words() {
    assert_eq!(references("N-17, G-26: the lease of S3 ended"), ["N-17", "G-26"]);
    assert_eq!(references("R22: the others"), ["R22"]);
    assert!(references("An S3 server, UTF-8, at most so many").is_empty());
    let row = "| R1 | fault of `ver_waiting` | `a::b::{one_test_here, d}`, `crash::some_*`, `docs/x.md` |";
    let named: Vec<String> = tests_named(row).into_iter().collect();
    assert_eq!(named, ["d", "one_test_here", "some_*"]);
}
