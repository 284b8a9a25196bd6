//! Columns as Go's tabwriter makes them: cells end in a tab, a column is as wide as its widest cell plus the padding.

/// How wide columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Narrowest column, padding included.
    pub least: usize,
    /// Blanks behind the widest cell.
    pub padding: usize,
}

/// Docker's tables.
pub const DOCKER: Columns = Columns { least: 10, padding: 3 };

/// Replaces tabs by blanks. A column ends at the first line that has no cell in it.
#[must_use]
pub fn tabulate(text: &str, columns: Columns) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let widths = widths(&lines, columns);
    let mut out = String::with_capacity(text.len() * 2);
    for (number, (line, widths)) in lines.iter().zip(&widths).enumerate() {
        if number > 0 {
            out.push('\n');
        }
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < line.len() {
                let width = widths.get(column).copied().unwrap_or(0);
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
    }
    out
}

/// The width of each cell that a tab ends.
fn widths(lines: &[Vec<&str>], columns: Columns) -> Vec<Vec<usize>> {
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len().saturating_sub(1)]).collect();
    let most = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..most {
        let mut start = 0;
        while start < lines.len() {
            if widths[start].len() <= column {
                start += 1;
                continue;
            }
            let end = (start..lines.len()).find(|line| widths[*line].len() <= column).unwrap_or(lines.len());
            let widest = lines[start..end].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let width = (widest + columns.padding).max(columns.least);
            for line in &mut widths[start..end] {
                line[column] = width;
            }
            start = end;
        }
    }
    widths
}

/// Cuts a text to so many terminal cells; what was cut shows as `…`.
#[must_use]
pub fn ellipsis(text: &str, cells: usize) -> String {
    use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
    if cells == 0 || text.width() <= cells {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut width = 0;
    for character in text.chars() {
        let next = character.width().unwrap_or(0);
        if width + next > cells - 1 {
            break;
        }
        width += next;
        out.push(character);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(
            tabulate("A\tLONG NAME\tC\nlonger than ten\tx\ty\n", DOCKER),
            "A                 LONG NAME   C\nlonger than ten   x           y\n"
        );
        assert_eq!(tabulate("one\ttwo\nplain\nlonger word\tx\n", DOCKER), "one       two\nplain\nlonger word   x\n");
    }

    #[test]
    fn long_texts_are_cut_by_cells() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
        assert_eq!(ellipsis("日本語", 5), "日本…");
    }
}
