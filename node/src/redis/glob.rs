//! Patterns of keys: `*`, `?`, `[abc]`, `[^a-c]`, and a backslash before what is meant as it is.

use super::limits::MAX_PATTERN_BYTES;
use super::refusal::Refusal;

/// What fits a byte, or, of a star, any number of them.
#[derive(Debug)]
enum Element {
    Star,
    Any,
    Byte(u8),
    /// A bit for each byte.
    Class(Box<[u64; 4]>),
}

impl Element {
    fn fits(&self, byte: u8) -> bool {
        match self {
            Element::Star => false,
            Element::Any => true,
            Element::Byte(meant) => *meant == byte,
            Element::Class(bits) => bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
        }
    }
}

/// A pattern that was read once, so that looking at a byte takes the same time whatever it says.
#[derive(Debug)]
pub struct Pattern {
    elements: Vec<Element>,
    /// From each element on, how many bytes a key has at least.
    least: Vec<usize>,
}

impl Pattern {
    /// Reads a pattern; any bytes are one.
    pub fn new(text: &[u8]) -> Pattern {
        let (mut elements, mut rest) = (Vec::new(), text);
        while let Some((element, behind)) = element(rest) {
            elements.push(element);
            rest = behind;
        }
        let mut least = vec![0; elements.len() + 1];
        for (at, element) in elements.iter().enumerate().rev() {
            least[at] = least[at + 1] + usize::from(!matches!(element, Element::Star));
        }
        Pattern { elements, least }
    }

    /// Bytes of memory that it takes, and was read with.
    pub fn bytes(&self) -> usize {
        let classes = self.elements.iter().filter(|element| matches!(element, Element::Class(_))).count();
        let each = size_of::<Element>() + size_of::<usize>();
        self.elements.capacity() * each + classes * size_of::<[u64; 4]>()
    }

    /// Steps that a look at a key of so many bytes takes at most.
    pub fn steps(&self, key_bytes: usize) -> usize {
        (key_bytes + 1) * self.elements.len().min(key_bytes + 1)
    }

    /// Whether a key is what the pattern says.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut at, mut seen) = (0, 0);
        // Where the last star stands, and how far the key was then: all that has to be tried again.
        let mut star: Option<(usize, usize)> = None;
        loop {
            // What is left of the key is too short, and is so from any later byte on.
            if self.least[at] > key.len() - seen {
                return false;
            }
            let element = self.elements.get(at);
            if matches!(element, Some(Element::Star)) {
                star = Some((at + 1, seen));
                at += 1;
                continue;
            }
            let fits = element.zip(key.get(seen)).is_some_and(|(element, byte)| element.fits(*byte));
            match star {
                _ if fits => (at, seen) = (at + 1, seen + 1),
                _ if seen == key.len() && element.is_none() => return true,
                Some((behind, from)) if from < key.len() => {
                    star = Some((behind, from + 1));
                    (at, seen) = (behind, from + 1);
                }
                _ => return false,
            }
        }
    }
}

/// Whether the patterns of one command, so many bytes together, are short enough to be read at once.
pub fn check_bytes(bytes: usize) -> Result<(), Refusal> {
    if bytes > MAX_PATTERN_BYTES {
        return Err(Refusal::new(format_args!(
            "the patterns of a command have at most {MAX_PATTERN_BYTES} bytes"
        )));
    }
    Ok(())
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

/// The first element of a pattern's text, and what is behind it; none at its end.
fn element(text: &[u8]) -> Option<(Element, &[u8])> {
    Some(match *text {
        [] => return None,
        [b'*', ref behind @ ..] => (Element::Star, behind),
        [b'?', ref behind @ ..] => (Element::Any, behind),
        [b'[', ref behind @ ..] => class(behind),
        [b'\\', meant, ref behind @ ..] | [meant, ref behind @ ..] => (Element::Byte(meant), behind),
    })
}

/// A class of bytes, behind its bracket. One without an end reaches to the pattern's.
fn class(text: &[u8]) -> (Element, &[u8]) {
    let is_not = text.first() == Some(&b'^');
    let mut rest = &text[usize::from(is_not)..];
    let mut bits = Box::new([0u64; 4]);
    let mut put = |from: u8, to: u8| {
        (from.min(to)..=from.max(to)).for_each(|byte| bits[usize::from(byte >> 6)] |= 1 << (byte & 63));
    };
    loop {
        rest = match *rest {
            [] => break,
            [b']', ref behind @ ..] => {
                rest = behind;
                break;
            }
            [b'\\', meant, ref behind @ ..] => {
                put(meant, meant);
                behind
            }
            [from, b'-', to, ref behind @ ..] => {
                put(from, to);
                behind
            }
            [meant, ref behind @ ..] => {
                put(meant, meant);
                behind
            }
        };
    }
    if is_not {
        bits.iter_mut().for_each(|word| *word = !*word);
    }
    (Element::Class(bits), rest)
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
            assert_eq!(Pattern::new(pattern.as_bytes()).matches(key.as_bytes()), fits, "{pattern:?} {key:?}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = Pattern::new(&b"*a".repeat(2000));
        assert!(!pattern.matches(&b"b".repeat(4096)));
        assert!(!pattern.matches(&b"a".repeat(1999)));
        assert!(pattern.matches(&b"a".repeat(2000)));
        // A class is looked through once, and not for each byte of each key; what cannot fit any more is not tried.
        let text = [&b"*["[..], &b"b".repeat(16_000), b"a][", &b"b".repeat(300), b"]"].concat();
        let pattern = Pattern::new(&text);
        assert!(pattern.steps(4000) <= 4001 * 3);
        assert!(!pattern.matches(&b"a".repeat(4000)));
        assert!(pattern.matches(&[&b"a".repeat(4000)[..], b"b"].concat()));
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
