//! What the README and the pages in `docs/` show can be pasted, and where they link to is something.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::Cli;

fn root() -> PathBuf {
    std::path::absolute(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The blocks of one language below a heading, up to the next one of its level.
fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let below = page.split_once(&format!("\n{heading}\n")).expect("the heading").1;
    let level = heading.split(' ').next().unwrap();
    let below = below.split(&format!("\n{level} ")).next().unwrap();
    let begin = format!("```{language}\n");
    let blocks = below.split(&begin).skip(1);
    blocks.map(|rest| rest.split_once("```").expect("its end").0.to_owned()).collect()
}

/// Runs the shell block in a folder of its own and returns what it printed.
fn pasted(block: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_chronos"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let ran = Command::new("sh")
        .args(["-e", "-x", "-c", block])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn every_line_of_the_shell_chapter_works_when_pasted() {
    let [records, bus] = &blocks(&page("README.md"), "## Shell", "sh")[..] else {
        panic!("one block about records and one about the bus")
    };
    let out = pasted(records);
    assert!(out.contains(r#""plan":"team""#) && out.contains(r#""problems":[]"#), "{out}");
    let out = pasted(bus);
    assert!(out.contains(r#""order":1"#) && out.contains(r#""subscription":"billing""#), "{out}");
}

#[test]
fn the_script_of_the_operations_page_works_when_pasted() {
    let [script] = &blocks(&page("docs/operations.md"), "## The program in scripts", "sh")[..] else {
        panic!("one block")
    };
    let out = pasted(script);
    assert!(out.contains(r#""created":1"#) && out.contains(r#""problems":[]"#), "{out}");
}

#[test]
fn the_drill_of_the_operations_page_brings_everything_back() {
    let chapter = "## Backups and what to do in a disaster";
    let [script] = &blocks(&page("docs/operations.md"), chapter, "sh")[..] else { panic!("one block") };
    let out = pasted(script);
    assert!(out.contains(r#""versions":3"#) && out.contains(r#""problems":[]"#), "{out}");
    assert!(out.trim_end().lines().last().is_some_and(|line| line.contains("paid")), "{out}");
}

#[test]
fn the_configurations_of_the_pages_pass_the_check() {
    let cli = Cli::new();
    let chapters =
        [("docs/operations.md", "## Configuration"), ("docs/getting-started.md", "## Say where things are")];
    for (name, heading) in chapters {
        let [config] = &blocks(&page(name), heading, "json")[..] else { panic!("one block in {name}") };
        cli.write("shown.json", config);
        let checked = cli
            .command(["config", "check", "shown.json"])
            .env("MONGO_URI", "mongodb://localhost:27017")
            .env("S3_KEY", "a-key")
            .env("S3_SECRET", "a-secret")
            .output()
            .unwrap();
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
}

#[test]
fn the_sections_that_the_operations_page_shows_pass_the_check() {
    let cli = Cli::new();
    let text = page("docs/operations.md");
    // Some stand between paragraphs, some within one.
    let blocks = text.split("```jsonc\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    let inline =
        text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("\"") && span.contains("\": {"));
    let sections: Vec<String> = blocks.chain(inline.map(str::to_owned)).collect();
    assert!(sections.len() >= 4, "{sections:?}");
    for section in sections {
        let config = format!(
            r#"{{"dbConnections": {{"here": {{"mongoUri": "embedded:./data"}}}}, "localStorage": {{"enabled": true, "basePath": "./objects"}},
            "databases": {{"runtime": {{"tenantDatabases": [
                {{"tenantId": "acme", "dbConnRef": "here", "dbName": "acme"}}, {{"tenantId": "globex", "dbConnRef": "here", "dbName": "globex"}}]}}}},
            {section}}}"#
        );
        cli.write("shown.json", &config);
        let checked = cli.run(&["config", "check", "shown.json"]);
        let said = checked.value();
        assert_eq!(checked.err(), "", "{section}");
        assert!(said["warnings"].as_array().is_none_or(Vec::is_empty), "{section}: {said}");
    }
}

/// The command lines that a page names within its text, as words.
fn commands_named(page: &str) -> Vec<Vec<String>> {
    let text: String = page.split("```").step_by(2).collect();
    let spans = text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("chronos "));
    let words = |span: &str| -> Vec<String> { span.split_whitespace().skip(1).map(str::to_owned).collect() };
    spans.map(words).collect()
}

#[test]
fn every_command_that_a_page_names_exists_with_its_options() {
    let cli = Cli::new();
    let mut seen = 0;
    for name in
        ["README.md", "docs/getting-started.md", "docs/operations.md", "docs/format.md", "docs/promises.md"]
    {
        for words in commands_named(&page(name)) {
            let path: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .take_while(|word| {
                    word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
                })
                .collect();
            // What follows a command may be a topic or another name that is given to it.
            let ends = (1..=path.len()).rev();
            let mut helps =
                ends.map(|end| cli.command([&path[..end], &["--help"]].concat()).output().unwrap());
            let help =
                helps.find(|help| help.status.success()).unwrap_or_else(|| panic!("{name}: {words:?}"));
            let help = String::from_utf8(help.stdout).unwrap();
            let letters = "`|,.;".chars().collect::<Vec<_>>();
            for option in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                let option = option.trim_matches(&letters[..]);
                assert!(
                    help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")),
                    "{name}: {words:?} has no {option}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} commands");
}

#[test]
fn the_picture_of_the_demo_shows_what_the_demo_says() {
    let readme = page("README.md");
    let picture = readme.split_once("```text\n").unwrap().1.split_once("```").unwrap().0;
    let said = Command::new(env!("CARGO_BIN_EXE_chronos")).arg("demo").output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stdout).unwrap();
    // Times are those of a machine: of a line with one, what stands before it counts.
    let lasting = |line: &str| {
        let before = [" in ", " took "].iter().filter_map(|word| line.find(word)).min();
        line[..before.unwrap_or(line.len())].trim().to_owned()
    };
    let said: BTreeSet<String> = said.lines().map(lasting).collect();
    for line in picture.lines().filter(|line| line.trim() != "…" && !line.starts_with('$')) {
        assert!(said.contains(&lasting(line)), "the demo does not say: {line}");
    }
}

/// What GitHub makes of a heading in addresses.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].iter().map(|name| root().join(name)).collect();
    for folder in ["docs", "docs/decisions"] {
        let files = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

#[test]
fn the_two_commands_and_the_linked_files_exist() {
    let readme = page("README.md");
    assert!(readme.contains("cargo run --release -- demo") && readme.contains("scripts/test"));
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", page.display());
            if !part.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
                assert!(anchors.any(|anchor| anchor == part), "{} links to {link}", page.display());
            }
        }
    }
}
