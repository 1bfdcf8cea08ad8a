//! Patterns of keys: `*`, `?`, `[abc]`, `[^a-c]`, and a backslash before what is meant as it is.

/// Whether a key is what the pattern says. Takes at most pattern times key steps, whatever the pattern.
pub fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where the last star stands, and how far the key was then: all that has to be tried again.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, seen));
            at += 1;
            continue;
        }
        let step = key.get(seen).and_then(|byte| one(&pattern[at..], *byte));
        match (step, star) {
            (Some(width), _) => {
                at += width;
                seen += 1;
            }
            (None, _) if seen == key.len() && at == pattern.len() => return true,
            (None, Some((behind, from))) if from < key.len() => {
                star = Some((behind, from + 1));
                (at, seen) = (behind, from + 1);
            }
            (None, _) => return false,
        }
    }
}

/// What every key that matches begins with.
pub fn prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        rest = match *rest {
            [b'*' | b'?' | b'[', ..] | [] => return prefix,
            [b'\\', byte, ref behind @ ..] | [byte, ref behind @ ..] => {
                prefix.push(byte);
                behind
            }
        };
    }
}

/// How much of the pattern's beginning this byte fits; `None`: it does not fit. No star is there.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ..] => {
            let (width, fits) = class(pattern, byte);
            fits.then_some(width)
        }
        [b'\\', meant, ..] => (meant == byte).then_some(2),
        [meant, ..] => (meant == byte).then_some(1),
    }
}

/// How long a class of bytes is, and whether this byte is in it. One without an end reaches to the pattern's.
fn class(pattern: &[u8], byte: u8) -> (usize, bool) {
    let is_not = pattern.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(is_not);
    let mut is_in = false;
    loop {
        match pattern[at..] {
            [] => return (at, is_in != is_not),
            [b']', ..] => return (at + 1, is_in != is_not),
            [b'\\', meant, ..] => {
                is_in |= meant == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                is_in |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [meant, ..] => {
                is_in |= meant == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_they_read() {
        for (pattern, key, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("*b", "abc", false),
            ("a*c*e", "abcde", true),
            ("a**e", "abcde", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-", "ha", true),
            ("[\\]]", "]", true),
            ("[]", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("user:*:name", "user:17:name", true),
            ("user:*:name", "user:17:nam", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), key.as_bytes()), fits, "{pattern:?} {key:?}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = b"*a".repeat(2000);
        assert!(!matches(&pattern, &b"b".repeat(4096)));
        assert!(!matches(&pattern, &b"a".repeat(1999)));
        assert!(matches(&pattern, &b"a".repeat(2000)));
    }

    #[test]
    fn keys_that_match_begin_alike() {
        for (pattern, wanted) in
            [("*", ""), ("abc", "abc"), ("user:*", "user:"), ("a\\*b?", "a*b"), ("a[b]", "a"), ("a\\", "a\\")]
        {
            assert_eq!(prefix(pattern.as_bytes()), wanted.as_bytes(), "{pattern}");
        }
    }
}
