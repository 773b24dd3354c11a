//! Keeping secrets out of what others say, such as a driver's or a server's words.

/// Shorter secrets are parts of ordinary words.
const LONG: usize = 8;

/// Puts `***` in place of each secret. One that is short is only taken for itself where it stands alone:
/// as a part of a word or a number it tells nothing, and taking it out would leave a message that nobody can
/// read.
pub(crate) fn redact<'s>(text: &str, secrets: impl IntoIterator<Item = &'s str>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
    // The longest first, so that none leaves a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| replace(&text, secret))
}

fn replace(text: &str, secret: &str) -> String {
    if secret.len() >= LONG {
        return text.replace(secret, "***");
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let (before, found) = rest.split_at(at);
        let after = &found[secret.len()..];
        let joined = |inner: Option<char>, outer: Option<char>| {
            inner.is_some_and(char::is_alphanumeric) && outer.is_some_and(char::is_alphanumeric)
        };
        let left = before.chars().next_back().or_else(|| clean.chars().next_back());
        let within =
            joined(secret.chars().next(), left) || joined(secret.chars().next_back(), after.chars().next());
        clean.push_str(before);
        clean.push_str(if within { secret } else { "***" });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn a_short_secret_leaves_the_words_it_is_a_part_of() {
        let text = "a connection to a.b failed: user ab has a wrong password (a)";
        assert_eq!(
            redact(text, ["a"]),
            "*** connection to ***.b failed: user ab has *** wrong password (***)"
        );
        assert_eq!(redact("port 27017 refused 27", ["27"]), "port 27017 refused ***");
        assert_eq!(redact("aa aaa", ["a", ""]), "aa aaa");
    }

    #[test]
    fn a_long_secret_goes_wherever_it_stands() {
        assert_eq!(redact("x-correct horse-y and horses", ["correct horse", "horse"]), "x-***-y and horses");
        assert_eq!(redact("xcorrect horsey", ["correct horse"]), "x***y");
    }
}
