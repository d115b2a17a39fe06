//! Rust's words and signs, as far as paths need them: comments, texts and what is only for tests are left out.

/// The tokens of a source file: words, `::`, and every other sign by itself.
pub(super) fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        at = match &chars[at..] {
            ['/', '/', ..] => find(&chars, at, &['\n']),
            ['/', '*', ..] => end_of_comment(&chars, at + 2),
            ['"', ..] => end_of_text(&chars, at + 1),
            ['\'', '\\', _, ..] => find(&chars, at + 3, &['\'']),
            ['\'', _, '\'', ..] => at + 3,
            [':', ':', ..] => {
                tokens.push("::".to_owned());
                at + 2
            }
            [sign, ..] if sign.is_whitespace() => at + 1,
            [sign, ..] if !is_of_word(*sign) => {
                tokens.push(sign.to_string());
                at + 1
            }
            rest => {
                let word: String = rest.iter().take_while(|char| is_of_word(**char)).collect();
                let end = at + word.chars().count();
                let end = match word.as_str() {
                    "r" | "br" => end_of_raw_text(&chars, end),
                    _ => end,
                };
                tokens.push(word);
                end
            }
        };
    }
    without_tests(&tokens)
}

fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The place after the next `wanted`, or the end.
fn find(chars: &[char], from: usize, wanted: &[char]) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    let found = rest.windows(wanted.len()).position(|these| these == wanted);
    found.map_or(chars.len(), |found| from + found + wanted.len())
}

/// Comments stand in one another.
fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 1;
    while depth > 0 && at < chars.len() {
        at += match &chars[at..] {
            ['/', '*', ..] => {
                depth += 1;
                2
            }
            ['*', '/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
    }
    at
}

fn end_of_text(chars: &[char], mut at: usize) -> usize {
    while let Some(char) = chars.get(at) {
        at += match char {
            '"' => return at + 1,
            '\\' => 2,
            _ => 1,
        };
    }
    at
}

/// The end of a raw text that begins there, or there.
fn end_of_raw_text(chars: &[char], from: usize) -> usize {
    let hashes = chars[from..].iter().take_while(|char| **char == '#').count();
    if chars.get(from + hashes) != Some(&'"') {
        return from;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    find(chars, from + hashes + 1, &end)
}

/// Leaves out each item that is there for tests alone.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const FOR_TESTS: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::with_capacity(tokens.len()), 0);
    while at < tokens.len() {
        if tokens[at..]
            .iter()
            .zip(FOR_TESTS)
            .filter(|(token, wanted)| *token == wanted)
            .count()
            == FOR_TESTS.len()
        {
            at = end_of_item(tokens, at + FOR_TESTS.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn end_of_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(token.as_str(), "}" | ";") {
            break;
        }
    }
    at
}
