//! From the arguments of the process to a command; what is wrong with them in one line.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, FromArgMatches as _};

use crate::Cli;
use crate::failure::{WRONG_INPUT, one_line};
use crate::stderr::note;

/// Parses the arguments of this process; help, the version and errors have been printed when it returns an
/// exit code.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    let matches = with_negative_values(Cli::command()).try_get_matches();
    matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)).map_err(|error| report(&error))
}

/// A negative number is a value, wherever one is taken: there are no options of that name.
fn with_negative_values(command: Command) -> Command {
    command
        .mut_args(|arg| if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg })
        .mut_subcommands(with_negative_values)
}

fn report(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nothing can be said where the output is closed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG_INPUT))
        }
        _ => {
            note(&in_one_line(&error.render().to_string()));
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// clap says in the paragraphs before the usage what is wrong, and what may be meant.
fn in_one_line(rendered: &str) -> String {
    let (wrong, rest) = rendered.split_once("\n\nUsage: ").unwrap_or((rendered, ""));
    let wrong = wrong.split("\n\nFor more information").next().unwrap_or(wrong);
    let command: Vec<&str> = rest
        .split_whitespace()
        .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let help = if command.is_empty() {
        String::new()
    } else {
        format!(" (`{} --help` tells more)", command.join(" "))
    };
    format!("{}{help}", one_line(wrong))
}

#[cfg(test)]
mod tests {
    use super::in_one_line;

    #[test]
    fn what_is_wrong_and_where_the_help_is_fit_on_one_line() {
        let rendered = "error: the following required arguments were not provided:\n  --collection <COLL>\n\nUsage: chronos list --collection <COLL>\n\n\
                        For more information, try '--help'.\n";
        let wrong = "error: the following required arguments were not provided: --collection <COLL> (`chronos list --help` tells more)";
        assert_eq!(in_one_line(rendered), wrong);
        let invalid = "error: invalid value 'never' for '--at <TIME>': no time\n\nFor more information, try '--help'.\n";
        assert_eq!(in_one_line(invalid), "error: invalid value 'never' for '--at <TIME>': no time");
    }
}
