//! Shows many objects in one line: the first few by name, and the number of the others.
//!
//! Sans-IO.

use std::fmt::{self, Write};

/// Maximum number of names.
const NAMED: usize = 5;

/// The objects to show.
pub(crate) struct Several<'a, T>(&'a [T]);

/// Shows the first few of these by name, and the number of the others: `t[0], t[1] and 198 more`.
/// Control characters are escaped, because names may come from a broker.
pub(crate) fn several<T: fmt::Display>(all: &[T]) -> Several<'_, T> {
    Several(all)
}

impl<T: fmt::Display> fmt::Display for Several<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().take(NAMED).enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(Escaped(f), "{one}")?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Escaped<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_first_five_and_counts_rest() {
        let numbers: Vec<u32> = (0..200).collect();
        assert_eq!(several(&numbers).to_string(), "0, 1, 2, 3, 4 and 195 more");
        assert_eq!(several(&numbers[..2]).to_string(), "0, 1");
        assert_eq!(several::<u32>(&[]).to_string(), "");
    }

    #[test]
    fn escapes_control_characters_of_listed_items() {
        assert_eq!(several(&["a\r\nb", "\u{1b}[31m"]).to_string(), "a\\r\\nb, \\u{1b}[31m");
    }
}
