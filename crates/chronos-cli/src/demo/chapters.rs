//! The chapters. Every figure is an answer of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chronos_db::{Collection, Error, ItemId, Json, List, Restored, Result, Timestamp, Version, View, json};
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::companies::{self, Difference, KEY, differences, name, sector};
use super::printer::{Ink, Printer, cut, grouped};

/// The dates of the table of sectors.
const DATES: [&str; 4] = ["2012-12-31", "2017-03-31", "2021-06-30", "2026-06-30"];
/// The company with a history to look at.
pub(super) const COMPANY: &str = "MMM";
/// The date the collection is taken back to.
pub(super) const BACK_TO: &str = "2015-12-31";
/// The function that enriches.
const FUNCTION: &str = "name-history@v1";
/// How long the storing of the payloads may take.
const DRAIN: Duration = Duration::from_secs(120);

/// The demo under way.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) companies: Collection,
    pub(super) printer: Printer,
}

type Contents = BTreeMap<ItemId, Json>;

impl Story {
    pub(super) async fn import(&mut self) -> Result<()> {
        let Self { companies, printer } = self;
        printer.chapter("The history of an index, imported change by change");
        let batches = companies::batches()?;
        let (dates, operations) = (batches.len(), batches.iter().map(Vec::len).sum::<usize>());
        let progress = progress(operations);
        let start = Instant::now();
        let importer = companies.import(KEY).await?;
        let (mut created, mut versions) = (0, 0);
        let mut span: Option<(Timestamp, Timestamp)> = None;
        for batch in batches {
            progress.inc(batch.len() as u64);
            for outcome in importer.apply(batch, true).await? {
                if let chronos_db::ImportOutcome::Written(written) = outcome? {
                    created += u64::from(written.created);
                    versions += u64::from(written.changed);
                    span = Some(span.map_or((written.at, written.at), |(first, last)| {
                        (first.min(written.at), last.max(written.at))
                    }));
                }
            }
        }
        let imported = start.elapsed();
        let waiting = companies.flush(DRAIN).await?.waiting;
        let stored = start.elapsed() - imported;
        progress.finish_and_clear();
        let live = contents(companies.list()).await?.len();

        let [created, versions, live] = [created, versions, live as u64].map(|n| printer.number(n));
        let span =
            span.map_or_else(String::new, |(first, last)| format!(" from {} to {}", day(first), day(last)));
        printer.line(format!(
            "{} operations at {dates} times{span}, imported in {}",
            grouped(operations as u64),
            seconds(imported)
        ));
        printer.line(format!(
            "{created} companies created, {versions} versions written, {live} companies in the index today"
        ));
        let rate = operations as f64 / imported.as_secs_f64();
        printer.line(format!(
            "{} operations/s, each on disk before it counted",
            printer.number(rate.round() as i64)
        ));
        printer.line(match waiting {
            0 => format!("every version's JSON stored as an object of its own {} later", seconds(stored)),
            n => format!("{} versions still wait to be stored as objects", grouped(n)),
        });
        Ok(())
    }

    pub(super) async fn sectors(&mut self) -> Result<()> {
        let Self { companies, printer } = self;
        printer.chapter("The index as of four dates");
        let mut counts: BTreeMap<String, [u64; DATES.len()]> = BTreeMap::new();
        let mut columns: [BTreeSet<&str>; DATES.len()] = Default::default();
        for (i, date) in DATES.into_iter().enumerate() {
            for company in contents(companies.list().as_of(end_of(date)?)).await?.values() {
                let (column, sector) = sector(company).unwrap_or(("", "(none)"));
                counts.entry(sector.to_owned()).or_default()[i] += 1;
                columns[i].insert(column);
            }
        }
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<u64>()));
        let max = rows.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(0);
        let mut total = [0; DATES.len()];

        let cells = |cells: [String; DATES.len()]| cells.map(|cell| format!("{cell:<16}")).concat();
        let head = format!("{:<31}{}", "", cells(DATES.map(str::to_owned)));
        printer.line(printer.ink(Ink::Title, head.trim_end()));
        for (sector, counts) in rows {
            for (sum, n) in total.iter_mut().zip(counts) {
                *sum += n;
            }
            let cells = counts.map(|n| match n {
                0 => " ".repeat(16),
                n => format!("{n:>4} {} ", printer.bar(n, max, 10)),
            });
            printer.line(format!("{:<31}{}", cut(&sector, 30), cells.concat()));
        }
        let sums = format!("{:<31}{}", "companies", cells(total.map(|n| format!("{n:>4}"))));
        printer.line(printer.ink(Ink::Title, sums.trim_end()));
        let columns = columns
            .map(|names| names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", "));
        let columns = format!("{:<31}{}", "read from the column", cells(columns));
        printer.line(printer.ink(Ink::Quiet, columns.trim_end()));
        printer.gap();
        printer.remark(
            "The source renamed its columns in 2023 (Sector became GICS Sector, Name became Security; chapter 3 has the day), and sectors \
             themselves came, went and were spelled differently. Nothing was migrated: each version reads as it was written.",
        );
        Ok(())
    }

    pub(super) async fn history(&mut self) -> Result<()> {
        let company = self.company().await?;
        let Self { companies, printer } = self;
        printer.chapter(&format!("The history of one company: {COMPANY}, {}", name(&company.document())));
        let mut before = json!({});
        for version in companies.history(&company.id).await? {
            let Version { ov, at, op, reason, .. } = version;
            let now = document_of(companies, &company.id, ov).await?;
            let reason = reason.map_or_else(String::new, |reason| format!("source commit {reason}"));
            let label = printer.ink(Ink::Title, &format!("v{ov:<3} {}", day(at)));
            printer.line(format!(
                "{label}  {:<8}{}",
                op.as_str().to_lowercase(),
                printer.ink(Ink::Quiet, &reason)
            ));
            for difference in differences(&before, &now) {
                let Spoken { sign, ink, text } = spoken(&difference);
                printer.line(format!("     {}", printer.ink(ink, &format!("{sign} {}", cut(&text, 88)))));
            }
            before = now;
        }
        Ok(())
    }

    pub(super) async fn returns(&mut self) -> Result<()> {
        let Self { companies, printer } = self;
        printer.chapter("Who left and came back");
        let mut stays: BTreeMap<String, Vec<View>> = BTreeMap::new();
        let mut all = companies.list().include_deleted().stream().await?;
        while let Some(view) = all.try_next().await? {
            let symbol = view.item[KEY].as_str().unwrap_or_default().to_owned();
            stays.entry(symbol).or_default().push(view);
        }
        let symbols = stays.len();
        let left = stays.values().filter(|stays| stays.iter().any(|stay| stay.deleted_at.is_some())).count();
        let mut absences = Vec::new();
        let mut returned = 0;
        for (symbol, mut stays) in stays {
            let mut dated = Vec::with_capacity(stays.len());
            for stay in stays.drain(..) {
                dated.push((inserted_at(&stay)?, stay));
            }
            dated.sort_by_key(|(from, _)| *from);
            returned += usize::from(dated.len() > 1);
            for pair in dated.windows(2) {
                let ((_, gone), (back, again)) = (&pair[0], &pair[1]);
                let until = gone
                    .deleted_at
                    .ok_or_else(|| Error::database(format!("two live items have the key {symbol}")))?;
                absences.push((
                    back.as_millis() - until.as_millis(),
                    symbol.clone(),
                    until,
                    *back,
                    gone.document(),
                    again.id,
                ));
            }
        }
        absences.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));

        let [symbols, left, returned, times] =
            [symbols, left, returned, absences.len()].map(|n| printer.number(n as u64));
        printer.line(format!(
            "{symbols} ticker symbols in all; {left} of them left at least once, {returned} came back, {times} times in all"
        ));
        printer
            .remark("A return is a new item with versions of its own: the old one and its history stay as they are. The longest absences:");
        printer.gap();
        let head =
            format!("{:<8}{:<12}{:<12}{:<32}{}", "symbol", "left", "came back", "left as", "came back as");
        printer.line(printer.ink(Ink::Title, &head));
        for (_, symbol, until, back, gone, again) in absences.into_iter().take(6) {
            let again = document_of(companies, &again, 0).await?;
            let (gone, again) = (cut(name(&gone), 30), cut(name(&again), 30));
            printer.line(format!("{symbol:<8}{:<12}{:<12}{gone:<32}{again}", day(until), day(back)));
        }
        Ok(())
    }

    pub(super) async fn restore(&mut self) -> Result<()> {
        let Self { companies, printer } = self;
        printer.chapter(&format!("The whole collection back to {BACK_TO}, and forth again"));
        let target = end_of(BACK_TO)?;
        let here = companies.stable_cv().await?;
        let (before, then) =
            (contents(companies.list()).await?, contents(companies.list().as_of(target)).await?);
        say_contents(printer, "before", &before, &format!("at collection version {}", grouped(here)));

        let start = Instant::now();
        let restored =
            companies.restore_collection().to_time(target).actor("demo").reason("a look back").await?;
        say_restored(printer, &restored, start.elapsed());
        let between = contents(companies.list()).await?;
        say_contents(printer, "between", &between, &same(&between, &then, &format!("as of {BACK_TO}"))?);

        let start = Instant::now();
        let restored =
            companies.restore_collection().to_cv(here).actor("demo").reason("back to the present").await?;
        say_restored(printer, &restored, start.elapsed());
        let after = contents(companies.list()).await?;
        let as_of = contents(companies.list().as_of_cv(here)).await?;
        let verdict = same(&after, &as_of, &format!("as of collection version {}", grouped(here)))?;
        same(&after, &before, "before")?;
        say_contents(printer, "after", &after, &verdict);
        let written = companies.stable_cv().await? - here;
        printer.gap();
        printer.remark(&format!(
            "Both ways were ordinary writes: {} new versions that share the payloads of old ones. Nothing was overwritten, and both restores can be undone.",
            grouped(written)
        ));
        Ok(())
    }

    pub(super) async fn enrich(&mut self) -> Result<()> {
        let company = self.company().await?;
        let Self { companies, printer } = self;
        printer.chapter("One record enriched, with its provenance");
        let mut names: Vec<String> = Vec::new();
        for version in companies.history(&company.id).await? {
            let name = name(&document_of(companies, &company.id, version.ov).await?).to_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let patch = json!({ "namesSoFar": names });
        let enrich = || {
            companies
                .enrich(&company.id, patch.clone())
                .function_id(FUNCTION)
                .actor("demo")
                .reason("names from its own history")
        };
        let written = enrich().await?;
        let now = latest(companies, &company.id).await?;
        let earlier = document_of(companies, &company.id, company.ov).await?;
        if earlier != company.document() || written.ov != company.ov + 1 {
            return Err(Error::database("the enrichment changed an earlier version").on_item(company.id));
        }
        printer.line(format!("{COMPANY} v{} → v{}, by the function {FUNCTION}", company.ov, written.ov));
        for difference in differences(&earlier, &now.document()) {
            let Spoken { sign, ink, text } = spoken(&difference);
            printer.line(format!("     {}", printer.ink(ink, &format!("{sign} {}", cut(&text, 88)))));
        }
        let system = &now.item["_system"];
        for property in ["ov", "cv", "insertedAt", "updatedAt", "functionIds"] {
            printer.line(format!(
                "     {} {}",
                printer.ink(Ink::Quiet, &format!("_system.{property:<12}")),
                system[property]
            ));
        }
        printer.line(format!(
            "v{} is unchanged: its document equals the one read before the enrichment",
            company.ov
        ));
        let again = enrich().await?;
        if again.changed {
            return Err(Error::database("the same enrichment made a second version").on_item(company.id));
        }
        printer.line(format!(
            "the same enrichment again changes nothing and makes no version: {COMPANY} stays at v{}",
            again.ov
        ));
        Ok(())
    }

    pub(super) async fn verify(&mut self) -> Result<()> {
        let Self { companies, printer } = self;
        printer.chapter("Every version checked");
        companies.flush(DRAIN).await?;
        let start = Instant::now();
        let found = companies.verify().await?;
        let took = seconds(start.elapsed());
        let [versions, items, live, checked] =
            [found.versions, found.items, found.live, found.checked].map(|n| printer.number(n));
        printer.line(format!(
            "{versions} versions of {items} items ({live} live) up to collection version {}",
            grouped(found.stable_cv)
        ));
        printer.line(format!(
            "{checked} payloads read back from the objects and compared with their SHA-256, in {took}"
        ));
        printer.line(format!(
            "{} numbers without a version, {} versions waiting to be stored",
            grouped(found.voids),
            grouped(found.unflushed)
        ));
        let (ink, verdict) = match found.problem_count {
            0 => (Ink::Added, "no problems: the index and the objects are what they should be".to_owned()),
            n => (Ink::Removed, format!("{} problems", grouped(n))),
        };
        printer.line(printer.ink(ink, &verdict));
        for problem in found.problems.iter().take(10) {
            printer.line(format!("  {}: {}", problem.kind, problem.message));
        }
        if found.is_clean() {
            Ok(())
        } else {
            Err(Error::database("the collection is damaged; `verify` says how").during("verify"))
        }
    }

    /// The company of the chapters about one.
    pub(super) async fn company(&self) -> Result<View> {
        let page = self.companies.list().filter(json!({ KEY: COMPANY })).limit(1).await?;
        page.items
            .into_iter()
            .next()
            .ok_or_else(|| Error::not_found(format!("there is no live company {COMPANY}")))
    }
}

/// A list's documents by item.
async fn contents(list: List) -> Result<Contents> {
    list.stream().await?.map_ok(|view| (view.id, view.document())).try_collect().await
}

async fn latest(companies: &Collection, id: &ItemId) -> Result<View> {
    companies.get(id).await?.ok_or_else(|| Error::not_found("the company is gone").on_item(id))
}

async fn document_of(companies: &Collection, id: &ItemId, ov: i64) -> Result<Json> {
    let view = companies.get(id).version(ov).include_deleted().await?;
    view.map(|view| view.document())
        .ok_or_else(|| Error::not_found("the version is gone").on_item(id).at_version(ov))
}

fn inserted_at(view: &View) -> Result<Timestamp> {
    Timestamp::parse(view.item["_system"]["insertedAt"].as_str().unwrap_or_default())
}

fn end_of(date: &str) -> Result<Timestamp> {
    Timestamp::parse(&format!("{date}T23:59:59.999Z"))
}

fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn progress(operations: usize) -> ProgressBar {
    // It shows itself on a terminal only.
    let bar = ProgressBar::new(operations as u64);
    match ProgressStyle::with_template("   importing {bar:40} {pos}/{len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A difference in words.
struct Spoken {
    sign: char,
    ink: Ink,
    text: String,
}

fn spoken(difference: &Difference<'_>) -> Spoken {
    let (sign, ink) = match difference {
        Difference::Added(..) => ('+', Ink::Added),
        Difference::Removed(..) => ('-', Ink::Removed),
        Difference::Changed(..) | Difference::Renamed { .. } => ('~', Ink::Changed),
    };
    let text = match difference {
        Difference::Added(name, value) | Difference::Removed(name, value) => format!("{name}: {value}"),
        Difference::Changed(name, was, is) => format!("{name}: {was} → {is}"),
        Difference::Renamed { from, to, was, is } if was == is => {
            format!("column {from} renamed {to}, still {is}")
        }
        Difference::Renamed { from, to, was, is } => format!("column {from} renamed {to}: {was} → {is}"),
    };
    Spoken { sign, ink, text }
}

fn say_contents(printer: &mut Printer, when: &str, contents: &Contents, verdict: &str) {
    let companies = printer.number(contents.len() as u64);
    printer.line(format!("{:<9}{companies} companies, {verdict}", format!("{when}:")));
}

fn say_restored(printer: &mut Printer, restored: &Restored, took: Duration) {
    let Restored { items, restored, removed, unchanged, skipped, .. } = *restored;
    let [items, restored, removed, unchanged, skipped] =
        [items, restored, removed, unchanged, skipped].map(grouped);
    let counts = format!("{restored} restored, {removed} removed, {unchanged} unchanged, {skipped} skipped");
    let text = format!("         restored in {}: {items} items looked at; {counts}", seconds(took));
    printer.line(printer.ink(Ink::Quiet, &text));
}

/// That the two are equal, in words.
fn same(now: &Contents, then: &Contents, when: &str) -> Result<String> {
    if now == then {
        return Ok(format!("every document equal to the collection {when}: checked"));
    }
    let different = then.iter().filter(|(id, document)| now.get(id) != Some(document)).count();
    let more = now.keys().filter(|id| !then.contains_key(id)).count();
    Err(Error::database(format!(
        "the restored collection is not as it was {when}: {different} documents differ, {more} are too many"
    )))
}
