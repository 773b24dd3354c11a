//! What the README shows can be pasted.

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap()
}

/// The first shell block below a heading.
fn shell_block(readme: &str, heading: &str) -> String {
    let below = readme.split_once(&format!("## {heading}\n")).expect("the heading").1;
    below.split_once("```sh\n").expect("a shell block").1.split_once("```").expect("its end").0.to_owned()
}

/// Runs the block in a folder of its own and returns what it printed.
fn pasted(heading: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_chronos"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = shell_block(&readme(), heading);
    let ran = Command::new("sh")
        .args(["-e", "-x", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn every_line_of_the_shell_chapter_works_when_pasted() {
    let out = pasted("In a shell");
    assert!(out.contains(r#""plan":"team""#) && out.contains(r#""problems":[]"#), "{out}");
}

#[test]
fn every_line_of_the_chapter_about_the_bus_works_when_pasted() {
    let out = pasted("Beside it: chronow");
    assert!(out.contains(r#""order":1"#) && out.contains(r#""subscription":"billing""#), "{out}");
}

#[test]
fn the_two_commands_and_the_linked_files_exist() {
    let readme = readme();
    assert!(readme.contains("cargo run --release -- demo") && readme.contains("scripts/test"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        assert!(
            link.starts_with("http") || root.join(link).exists(),
            "the README links to {link}, which is not there"
        );
    }
}
