/// Returns the nearest of the names, if one is near enough.
pub(super) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Ignores other languages' spellings of the same words: linger_ms, lingerMs.
    let wrong = normal(wrong);
    let bound = (wrong.len() / 4).clamp(1, 4);
    names
        .map(|name| (distance(&wrong, &normal(name)), name))
        .filter(|(far, _)| *far <= bound)
        .min()
        .map(|(_, name)| name)
}

fn normal(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '.' | '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).take(100).collect()
}

/// Returns the number of letters to insert, leave out, change or swap with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    // Rows of the table: the one before the last, the last, and the current one.
    let mut older: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, j + 1) + 1).min(at(&row, j) + 1).min(at(&last, j) + usize::from(from != to));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&older, j - 1) + 1);
            }
            row.push(best);
        }
        older = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits_between_two_names() {
        let far = |a: &str, b: &str| distance(&normal(a), &normal(b));
        assert_eq!(far("linger", "linger"), 0);
        assert_eq!(far("lingre", "linger"), 1);
        assert_eq!(far("linge", "linger"), 1);
        assert_eq!(far("lingger", "linger"), 1);
        assert_eq!(far("acks", ""), 4);
        assert_eq!(far("", "acks"), 4);
        assert_eq!(far("kitten", "sitting"), 3);
    }

    #[test]
    fn suggests_similar_names_but_not_distant_ones() {
        let names = ["linger.ms", "batch.size", "acks", "retry.backoff.ms", "retry.backoff.max.ms"];
        let near = |wrong| nearest(wrong, names.into_iter());
        assert_eq!(near("linger.mss"), Some("linger.ms"));
        assert_eq!(near("linger_ms"), Some("linger.ms"));
        assert_eq!(near("lingerMs"), Some("linger.ms"));
        assert_eq!(near("retry.backof.max.ms"), Some("retry.backoff.max.ms"));
        assert_eq!(near("ack"), Some("acks"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
    }
}
