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
