//! The results as one HTML file: figures, bars and tables, with nothing fetched and no script.

use std::fmt::Write;

use super::results::{PhaseRow, Results, SideRow};
use super::score::Score;
use crate::report::figure;

/// Measures of the bars, in pixels.
const LABEL_WIDTH: f64 = 150.0;
const BARS_WIDTH: f64 = 460.0;
const VALUE_WIDTH: f64 = 190.0;
const BAR_HEIGHT: f64 = 14.0;
const ROW_GAP: f64 = 10.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;\
padding:0 1rem;color:#1b1f24;background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;\
margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}\
td,th{padding:.2rem .6rem;border-bottom:1px solid #e3e6ea;text-align:right}td:first-child,\
th:first-child{text-align:left}svg text{font:12px system-ui,sans-serif;fill:#1b1f24}\
.score{display:flex;gap:2rem;flex-wrap:wrap}.score div{border:1px solid #e3e6ea;\
border-radius:8px;padding:.6rem 1rem}.score b{font-size:1.6rem;display:block}.note{color:#57606a}\
.door{fill:#2563eb}.against{fill:#f59e0b}.key{display:inline-block;width:.8em;height:.8em;\
margin:0 .3em 0 1em}";

/// One bar.
struct Bar {
    class: &'static str,
    value: f64,
    text: String,
}

impl Results {
    /// The results as a page that needs no other file.
    pub fn to_html(&self) -> String {
        let mut page = String::new();
        self.write_html(&mut page);
        page
    }

    fn write_html(&self, page: &mut String) {
        let setting = escape(&self.setting);
        let machine = &self.machine;
        let kernel = escape(&machine.kernel);
        page.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
        page.push_str("<title>ringfs bench</title>");
        add(page, format_args!("<style>{STYLE}</style></head><body>\n<h1>ringfs bench</h1>\n"));
        add(page, format_args!("<p>{setting}.</p>\n"));
        add(
            page,
            format_args!(
                "<p class=\"note\">RingFS {}, Linux {kernel}, {} cores, load average {:.2} before \
                 and {:.2} after. Medians of {} round(s), contents seed {}.</p>\n",
                self.version,
                machine.cores,
                machine.load_before,
                machine.load_after,
                self.rounds,
                self.seed
            ),
        );
        if !machine.is_optimised {
            page.push_str(
                "<p><b>Built without optimisation: these figures mean nothing.</b></p>\n",
            );
        }
        self.scores_html(page);
        self.legend_html(page);
        for (title, unit) in [("Bandwidth, MiB/s", "MiB/s"), ("Operations per second", "ops/s")] {
            add(page, format_args!("<h2>{title}</h2>\n"));
            bars(page, &self.rows_of(unit));
        }
        page.push_str(
            "<h2>Part of the limit reached</h2>\n<p class=\"note\">The median of the \
                       ratios of single rounds, each to the limit measured in that round.</p>\n",
        );
        bars(page, &self.ratio_rows());
        self.limits_html(page);
        self.table_html(page);
        page.push_str("</body></html>\n");
    }

    fn scores_html(&self, page: &mut String) {
        let Some(scores) = &self.scores else { return };
        let one = |page: &mut String, name: &str, score: &Score| {
            add(
                page,
                format_args!(
                    "<div><span class=\"note\">{}</span><b>{:.3}</b>{:.3} GiB/s, {:.3} kIOPS</div>",
                    escape(name),
                    score.total,
                    score.bandwidth_gib_s,
                    score.metadata_kiops
                ),
            );
        };
        page.push_str("<div class=\"score\">");
        one(page, "score", &scores.door);
        if let (Some(score), Some(name)) = (&scores.against, &self.against) {
            one(page, name, score);
        }
        page.push_str(
            "</div>\n<p class=\"note\">Computed as the IO500 does, but no IO500 score: \
                       those need its own programs and minutes per phase.</p>\n",
        );
    }

    fn legend_html(&self, page: &mut String) {
        if let Some(against) = &self.against {
            let against = escape(against);
            add(
                page,
                format_args!(
                    "<p><span class=\"key\" style=\"background:#2563eb\"></span>measured\
                     <span class=\"key\" style=\"background:#f59e0b\"></span>{against}; the bars of \
                     each phase have a scale of their own</p>\n"
                ),
            );
        }
    }

    /// Bars of the phases whose rates have this unit.
    fn rows_of(&self, unit: &str) -> Vec<(&'static str, Vec<Bar>)> {
        let bar =
            |class, side: &SideRow| Bar { class, value: side.median, text: figure(side.median) };
        let rows = self.phases.iter().filter(|row| row.unit == unit);
        rows.map(|row| {
            let mut bars = vec![bar("door", &row.door)];
            bars.extend(row.against.as_ref().map(|side| bar("against", side)));
            (row.name, bars)
        })
        .collect()
    }

    fn ratio_rows(&self) -> Vec<(&'static str, Vec<Bar>)> {
        let row = |row: &PhaseRow| {
            let ratio = row.to_limit.as_ref()?;
            let text = format!("{:.0} % of {}", ratio.median * 100.0, ratio.to);
            Some((row.name, vec![Bar { class: "door", value: ratio.median, text }]))
        };
        self.phases.iter().filter_map(row).collect()
    }

    fn limits_html(&self, page: &mut String) {
        page.push_str(
            "<h2>Limits of the machine in the same run</h2>\n<table><tr><th>limit</th>\
                       <th>median</th><th>unit</th><th>what</th></tr>\n",
        );
        for row in &self.limits {
            add(
                page,
                format_args!(
                    "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                    row.name,
                    figure(row.median),
                    row.unit,
                    escape(row.description)
                ),
            );
        }
        page.push_str("</table>\n");
    }

    fn table_html(&self, page: &mut String) {
        page.push_str("<h2>All figures</h2>\n<table><tr>");
        let heads = [
            "phase",
            "side",
            "median",
            "unit",
            "lowest",
            "highest",
            "operations",
            "seconds",
            "fsync s",
            "p50 us",
            "p99 us",
            "server CPU s",
            "CPU s per GiB",
            "server MiB",
        ];
        heads.iter().for_each(|head| add(page, format_args!("<th>{head}</th>")));
        page.push_str("</tr>\n");
        for row in &self.phases {
            side_html(page, row, "measured", &row.door);
            if let Some(side) = &row.against {
                side_html(page, row, "beside", side);
            }
        }
        page.push_str("</table>\n");
    }
}

fn side_html(page: &mut String, row: &PhaseRow, name: &str, side: &SideRow) {
    let lowest = side.rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = side.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let some = |value: Option<f64>, decimals: usize| {
        value.map_or_else(String::new, |value| format!("{value:.decimals$}"))
    };
    let cells = [
        row.name.to_owned(),
        name.to_owned(),
        figure(side.median),
        row.unit.to_owned(),
        figure(lowest),
        figure(highest),
        format!("{:.0}", side.operations),
        format!("{:.3}", side.seconds),
        some(side.sync_seconds, 3),
        format!("{:.1}", side.median_us),
        format!("{:.1}", side.slowest_percent_us),
        some(side.server_cpu_seconds, 2),
        some(side.server_cpu_seconds_per_gib, 2),
        some(side.server_peak_bytes.map(|bytes| bytes / f64::from(1 << 20)), 1),
    ];
    page.push_str("<tr>");
    cells.iter().for_each(|cell| add(page, format_args!("<td>{cell}</td>")));
    page.push_str("</tr>\n");
}

/// Horizontal bars: all to one scale, or where they are compared within a row, each row to its own.
fn bars(page: &mut String, rows: &[(&'static str, Vec<Bar>)]) {
    let largest_of =
        |bars: &[Bar]| bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let is_compared = rows.iter().any(|(_, bars)| bars.len() > 1);
    let largest = rows.iter().map(|(_, bars)| largest_of(bars)).fold(f64::MIN_POSITIVE, f64::max);
    let height_of = |bars: &Vec<Bar>| bars.len() as f64 * BAR_HEIGHT + ROW_GAP;
    let height: f64 = rows.iter().map(|(_, bars)| height_of(bars)).sum();
    let width = LABEL_WIDTH + BARS_WIDTH + VALUE_WIDTH;
    add(
        page,
        format_args!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\">\n"
        ),
    );
    let mut top = ROW_GAP / 2.0;
    for (name, bars) in rows {
        let scale = if is_compared { largest_of(bars) } else { largest };
        let base = top + height_of(bars) / 2.0 - ROW_GAP / 2.0 + 4.0;
        let label = LABEL_WIDTH - 8.0;
        add(
            page,
            format_args!("<text x=\"{label}\" y=\"{base}\" text-anchor=\"end\">{name}</text>"),
        );
        for (index, bar) in bars.iter().enumerate() {
            let y = top + index as f64 * BAR_HEIGHT;
            let length = (bar.value / scale * BARS_WIDTH).max(1.0);
            let (thick, after) = (BAR_HEIGHT - 2.0, LABEL_WIDTH + length + 6.0);
            let below = y + BAR_HEIGHT - 4.0;
            add(
                page,
                format_args!(
                    "<rect class=\"{}\" x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{length:.1}\" \
                     height=\"{thick}\"/><text x=\"{after:.1}\" y=\"{below}\">{}</text>\n",
                    bar.class,
                    escape(&bar.text)
                ),
            );
        }
        top += height_of(bars);
    }
    page.push_str("</svg>\n");
}

fn add(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;

    #[test]
    fn the_page_stands_alone() {
        let page = results().to_html();
        assert!(page.contains("a &lt;setting&gt;") && page.contains("<svg"), "{page}");
        for foreign in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for part in super::super::part::Part::ALL {
            assert!(page.contains(part.name()), "{}", part.name());
        }
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
