//! What a list asks of the store: of heads, and of version rows for what was otherwise at its point.

use bson::{Bson, RawDocument};

use super::page::{Order, SortKey, parse_cursor, token};
use super::query::{HEADS, Listed, Names, Query, ROWS};
use super::reader::{Reader, ResolvedVersion};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, raw_bson};
use crate::records::index::own_names::OnBuiltIn;
use crate::records::index::scope::Scope;
use crate::records::model::{Head, ItemId, Missing, Op, VersionSelector, int};
use crate::records::view::OnDamage;
use crate::{Error, Result, Timestamp};

/// The field of heads and rows that says what their index entry lacks.
const NOT_INDEXED: &str = "notIndexed";

/// The point of a list of the past.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    At(Timestamp),
    Cv(i64),
}

impl Point {
    /// None for the present.
    fn of(which: VersionSelector) -> Result<Option<Self>> {
        match which {
            VersionSelector::Latest => Ok(None),
            VersionSelector::At(at) => Ok(Some(Self::At(at))),
            VersionSelector::Cv(cv) => Ok(Some(Self::Cv(cv))),
            VersionSelector::Ov(_) => Err(Error::validation(
                "a list is as of a time or a collection version, not of an item version",
            )),
        }
    }

    pub(crate) fn selector(self) -> VersionSelector {
        match self {
            Self::At(at) => VersionSelector::At(at),
            Self::Cv(cv) => VersionSelector::Cv(cv),
        }
    }

    /// The fields of heads and of rows by which versions are older or younger, and the value of the point.
    pub(crate) fn fields(self) -> (&'static str, &'static str, Bson) {
        match self {
            Self::At(at) => ("updatedAt", "at", at.into()),
            Self::Cv(cv) => ("cv", "cv", int(cv)),
        }
    }

    /// Whether the item was then what it is now.
    fn is_now(self, cv: i64, updated_at: Timestamp) -> bool {
        match self {
            Self::At(at) => updated_at <= at,
            Self::Cv(point) => cv <= point,
        }
    }

    /// Whether the item was there at all, as far as its head can tell.
    pub(crate) fn may_have(self, head: &Head) -> bool {
        !matches!(self, Self::At(at) if head.created_at > at)
    }
}

/// What a query means of heads, or of rows.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) filter: Filter,
    pub(crate) order: Order,
}

crate::debug_some!(Side { order });

/// Which items of a list: one by a property that is an array in some of them has items without a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Placed,
    Unplaced,
}

/// A list.
#[derive(Clone)]
pub(crate) struct Plan {
    /// None for the present.
    pub(crate) point: Option<Point>,
    pub(crate) heads: Side,
    pub(crate) rows: Side,
    pub(crate) after: Option<Vec<Bson>>,
    pub(crate) include_deleted: bool,
    pub(crate) scope: Scope,
    /// Whether heads may be believed: they are no older than the rows.
    pub(crate) heads_follow: bool,
    /// The paths of properties that a user sorts by.
    pub(crate) sorted: Vec<String>,
    /// The paths of properties that a user filters by.
    pub(crate) filtered: Vec<String>,
    /// The top-level properties of both, if there are items whose index entry may lack some.
    pub(crate) incomplete: Vec<String>,
    part: Part,
    on_damage: OnDamage,
}

crate::debug_some!(Plan { point, heads, include_deleted, sorted });

impl Plan {
    fn paths(&self) -> &'static str {
        if self.point.is_some() { ROWS.id } else { HEADS.id }
    }

    /// The order of the list, whose names tell lists of the past from those of the present.
    pub(crate) fn order(&self) -> &Order {
        if self.point.is_some() { &self.rows.order } else { &self.heads.order }
    }

    /// The order of a token behind an item without a place.
    fn order_of_unplaced(&self) -> Order {
        vec![
            ("without a place".to_owned(), Direction::Ascending),
            (self.paths().to_owned(), Direction::Ascending),
        ]
    }

    /// What the list is put together of, one behind the other.
    pub(crate) fn parts(&self) -> Vec<Self> {
        if self.on_damage == OnDamage::Fail || self.sorted.is_empty() {
            return vec![self.clone()];
        }
        let by_id = |id: &str| vec![(id.to_owned(), Direction::Ascending)];
        let mut unplaced = Self { part: Part::Unplaced, ..self.clone() };
        unplaced.heads.filter = unplaced.heads.filter.and(self.is_unplaced());
        unplaced.heads.order = by_id(HEADS.id);
        unplaced.rows.order = by_id(ROWS.id);
        if self.part == Part::Unplaced {
            return vec![unplaced];
        }
        unplaced.after = None;
        let mut placed = Self { part: Part::Placed, ..self.clone() };
        placed.heads.filter = placed.heads.filter.and(Filter::Nor(vec![self.is_unplaced()]));
        vec![placed, unplaced]
    }

    /// Documents with an array on the way to something they are sorted by.
    fn is_unplaced(&self) -> Filter {
        let mut arrays = Vec::new();
        for path in &self.sorted {
            for part in path.match_indices('.').map(|(at, _)| &path[..at]).skip(1).chain([path.as_str()]) {
                arrays.push(Filter::Field(part.to_owned(), Test::ElemMatch(Vec::new())));
                arrays.push(Filter::Field(part.to_owned(), Test::Size(0)));
            }
        }
        Filter::Or(arrays)
    }

    /// Whether an item is of this part.
    pub(crate) fn keeps(&self, place: &SortKey) -> bool {
        match self.part {
            Part::All => true,
            Part::Placed => place.array.is_none(),
            Part::Unplaced => place.array.is_some(),
        }
    }

    /// Where to go on behind an item: nothing can behind one without a place.
    pub(crate) fn behind(&self, place: &SortKey, id: ItemId) -> Result<Vec<Bson>> {
        if self.part == Part::All {
            place.check(id)?;
        }
        Ok(place.values.clone())
    }

    /// The token behind an item.
    pub(crate) fn token(&self, place: &SortKey) -> Result<String> {
        if self.part != Part::Unplaced {
            return token(self.order(), &place.values);
        }
        let values: Vec<Bson> = std::iter::once(Bson::Null).chain(place.values.iter().cloned()).collect();
        token(&self.order_of_unplaced(), &values)
    }

    /// The direction of a list in the order of ids.
    pub(crate) fn by_id(&self) -> Option<Direction> {
        self.heads.order.first().filter(|(path, _)| path == HEADS.id).map(|(_, direction)| *direction)
    }

    /// Whether every item is shown.
    pub(crate) fn is_of_all(&self) -> bool {
        self.heads.filter == Filter::All
    }

    /// Whether an item whose head says this was then what it is now.
    pub(crate) fn is_now(&self, cv: i64, updated_at: Timestamp) -> bool {
        self.point.is_none_or(|point| self.heads_follow && point.is_now(cv, updated_at))
    }

    /// The item of a head, as it is now. In a list of the present that shows damage, one whose head cannot be
    /// read comes with the error.
    pub(crate) fn listed(&self, stored: &RawDocument) -> Result<Listed> {
        let mut place = SortKey::of(&self.heads.order, &self.sorted, stored)?;
        let found = match Head::read(stored) {
            Ok(head) => ResolvedVersion::from_head(head),
            Err(error) if self.on_damage == OnDamage::Show && self.point.is_none() => {
                let Bson::ObjectId(id) = raw_bson::id(stored)? else { return Err(error) };
                place.damage = Some(error);
                ResolvedVersion::unreadable(ItemId::new(id))
            }
            Err(error) => return Err(error),
        };
        Ok(Listed { place, found })
    }

    /// The heads of all items that are there, or may have been.
    pub(crate) fn all_heads(&self) -> Filter {
        self.scope.narrow(Filter::Field("erased".into(), Test::Ne(true.into())))
    }

    /// Such rows are not versions that the list shows.
    pub(crate) fn hidden(&self) -> &'static [Op] {
        let all: &'static [Op] = &[Op::Void, Op::Erase, Op::Erased, Op::Delete];
        if self.include_deleted { &all[..3] } else { all }
    }

    /// Heads or rows whose index entry lacks something that the list looks at; none if there is none.
    pub(crate) fn lacking(&self) -> Option<Filter> {
        let lacking = || Filter::any_of(NOT_INDEXED, Missing::values_with(&self.incomplete));
        (!self.incomplete.is_empty()).then(lacking)
    }

    /// The heads of all items that the list shows, as they are now, but for those whose entry lacks
    /// something.
    pub(crate) fn shown_heads(&self) -> Filter {
        let mut shown = self.all_heads().and(self.heads.filter.clone());
        if !self.incomplete.is_empty() {
            shown = shown
                .and(Filter::Field(NOT_INDEXED.into(), Test::Nin(Missing::values_with(&self.incomplete))));
        }
        if self.include_deleted { shown } else { shown.and(Filter::eq("deletedAt", Bson::Null)) }
    }
}

impl Reader {
    /// What a query means; of the past, once nothing can be added to that past any more.
    pub(crate) async fn plan(&self, query: &Query, scope: &Scope) -> Result<Plan> {
        self.check_kept(query.which)?;
        let mut which = self.watermark.settled(query.which).await?;
        let mut kept = Filter::All;
        if !self.index.settings.versioning && !matches!(which, VersionSelector::Ov(_)) {
            kept = self.kept(which, scope).await?;
            which = VersionSelector::Latest;
        }
        let declared = self.index.settings.map.indexed.as_slice();
        let own = self.index.own_names(query.mentioned(declared), scope).await?;
        let side = |names: &Names<'_>| {
            let order = names.stored_order(&query.sort)?;
            Ok::<_, Error>(Side { filter: names.stored_filter(query.filter.as_ref())?, order })
        };
        let silent = OnBuiltIn::default();
        let says_tenant = self.index.settings.says_tenant;
        let names =
            |paths, on_built_in| Names { paths, own: own.clone(), on_built_in, declared, says_tenant };
        let heads = |on_built_in| side(&names(&HEADS, on_built_in));
        let (mut heads, rows) = if which == VersionSelector::Latest {
            let heads = heads(&query.on_built_in)?;
            (heads.clone(), heads)
        } else {
            // First of rows, which know less.
            let rows = side(&names(&ROWS, &query.on_built_in))?;
            (heads(&silent)?, rows)
        };
        if kept != Filter::All {
            heads.filter = heads.filter.and(kept);
        }
        let point = Point::of(which)?;
        let is_property = |path: &&String| path.starts_with("metaIndexed.");
        let sorted = heads.order.iter().map(|(path, _)| path).filter(is_property).cloned().collect();
        let mut filtered = Vec::new();
        paths_of(&heads.filter, &mut filtered);
        let mut plan = Plan {
            point,
            heads,
            rows,
            after: None,
            include_deleted: query.read.include_deleted,
            scope: scope.clone(),
            heads_follow: self.watermark.past.heads_follow(),
            sorted,
            filtered: filtered.iter().filter(is_property).cloned().collect(),
            incomplete: Vec::new(),
            part: Part::All,
            on_damage: query.on_damage,
        };
        if !(plan.sorted.is_empty() && plan.filtered.is_empty()) && self.index.may_miss().await? {
            let tops = plan.sorted.iter().chain(&plan.filtered).filter_map(|path| path.split('.').nth(1));
            plan.incomplete = tops.map(str::to_owned).collect();
        }
        if let Some(token) = query.after.as_deref() {
            let unplaced = (plan.on_damage == OnDamage::Show)
                .then(|| parse_cursor(token, &plan.order_of_unplaced()).ok())
                .flatten();
            if let Some([_, id]) = unplaced.as_deref() {
                plan.part = Part::Unplaced;
                plan.after = Some(vec![id.clone()]);
            } else {
                plan.after = Some(parse_cursor(token, plan.order())?);
            }
        }
        Ok(plan)
    }
}

/// The paths of a filter, each once.
fn paths_of(filter: &Filter, paths: &mut Vec<String>) {
    for (path, _) in filter.fields() {
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
    }
}

/// The first items of an order, of many that come in any.
pub(crate) struct First<'p> {
    plan: &'p Plan,
    after: Option<Vec<Bson>>,
    most: usize,
    found: Vec<Listed>,
    /// Some were left out because there were too many.
    more: bool,
}

impl<'p> First<'p> {
    pub(crate) fn new(plan: &'p Plan, after: Option<Vec<Bson>>, most: usize) -> Self {
        Self { plan, after, most, found: Vec::new(), more: false }
    }

    pub(crate) fn add(&mut self, item: Listed) {
        let order = self.plan.order();
        if self.after.as_ref().is_none_or(|after| item.place.compare(after, order).is_gt()) {
            self.found.push(item);
            if self.found.len() >= self.most.saturating_mul(2) {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let order = self.plan.order();
        self.found.sort_by(|a, b| a.place.compare(&b.place.values, order));
        self.more |= self.found.len() > self.most;
        self.found.truncate(self.most);
    }

    pub(crate) fn in_order(mut self) -> (Vec<Listed>, bool) {
        self.cut();
        (self.found, self.more)
    }
}
