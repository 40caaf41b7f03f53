//! What somebody may have meant by a name that nobody has.

/// Returns the known name that is most like `wanted`, if any is like it at all
pub(crate) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let begins = |name: &str| wanted.len() > 1 && name.starts_with(&wanted);
    let far = |name: &&str| {
        let name = name.to_lowercase();
        if begins(&name) { 0 } else { distance(&wanted, &name) }
    };
    let found = known.min_by_key(far)?;
    // One slip in three letters is a slip, two are another name.
    (far(&found) <= wanted.chars().count().div_ceil(3).min(SLIPS)).then_some(found)
}

/// Letters to be added, left out, changed or swapped with their neighbour
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<_>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut least = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Slips that are forgiven in a name of any length
const SLIPS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        assert_eq!(distance("office", "office"), 0);
        assert_eq!(distance("ofice", "office"), 1);
        assert_eq!(distance("offcie", "office"), 1);
        assert_eq!(distance("", "office"), 6);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn name_that_is_like_one_is_taken_for_it_and_another_is_not() {
        let of = |wanted| nearest(wanted, ["home", "office", "tokyo-2"].into_iter());

        assert_eq!(of("ofice"), Some("office"));
        assert_eq!(of("Home"), Some("home"));
        assert_eq!(of("tok"), Some("tokyo-2"));
        assert_eq!(of("berlin"), None);
        assert_eq!(of(""), None);
        assert_eq!(nearest("x", [].into_iter()), None);
    }
}
