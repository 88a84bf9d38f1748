//! The price book: which listed price is that of a model, called in a region, on a surface.
//!
//! A call that no entry fits has no price (`None`), never the price zero. It rests on AWS's list prices of 2026-11-22,
//! compiled in from `conf/prices.yaml`; a price is that of the region where the call is made, and inference profiles
//! of a geography (`us.`, `eu.` …) are mostly 1.1 times the bare id (AWS user guide, global cross-region inference).

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

pub use super::overrides::{FieldError, PriceOverride};
pub use super::rates::{Dimension, Price};
pub use super::read::Problem;

use super::rates::Rates;
use super::read::{self, Row};
use super::reference::{Reference, without_geography};
use crate::types::map::HashMap;
use crate::types::money::Rate;

/// The prices of all models. Immutable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PriceBook {
    /// By the id without its geography prefix.
    families: HashMap<Box<str>, Vec<Listing>>,
    commitments: Vec<Commitment>,
    guardrail: Arc<Rates>,
}

/// Whose price is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// An id, with or without geography prefix, or an ARN; decoded.
    pub model_id: &'a str,
    /// The region the call is sent to. The region of an ARN goes before it.
    pub region: &'a str,
    pub surface: Surface,
    /// The model whose price applies where `model_id` does not say it.
    pub base_model: Option<&'a str>,
    /// The model that a prompt router picked, as the response names it (`Terms::invoked_model`).
    pub invoked_model: Option<&'a str>,
}

/// The hosts that serve models, which AWS prices apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Surface {
    /// `bedrock-runtime`, and everything that is not mantle.
    #[default]
    Runtime,
    /// `bedrock-mantle`.
    Mantle,
}

/// Everything that is wrong with a price book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBookError {
    /// In the order of their lines. Never empty.
    pub problems: Vec<Problem>,
}

#[derive(Debug, PartialEq, Eq)]
struct Listing {
    /// With its geography prefix.
    id: Box<str>,
    /// `None` where the price holds in every region that has none of its own.
    region: Option<Box<str>>,
    surface: Surface,
    price: Price,
}

#[derive(Debug, PartialEq, Eq)]
struct Commitment {
    model_id: Box<str>,
    region: Option<Box<str>>,
    term: Box<str>,
    unit_second: Rate,
}

static BUNDLED: LazyLock<Arc<PriceBook>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "compiled in, and read by a test of this module")]
    let book = PriceBook::from_yaml(include_str!("../../conf/prices.yaml")).expect("the bundled price book is sound");
    Arc::new(book)
});

impl PriceBook {
    /// Reads a book in the form of `conf/prices.yaml`.
    ///
    /// # Errors
    /// Every problem of the text: YAML that cannot be read, unknown keys, amounts that are no exact decimals, entries
    /// without a price, two entries for the same thing.
    pub fn from_yaml(text: &str) -> Result<Self, PriceBookError> {
        let mut problems = Vec::new();
        let mut book = Self::default();
        for row in read::rows(text, &mut problems) {
            book.add(row, &mut problems);
        }
        let guardrail = Arc::clone(&book.guardrail);
        for listing in book.families.values_mut().flatten() {
            listing.price.guardrail = Arc::clone(&guardrail);
        }
        if problems.is_empty() {
            return Ok(book);
        }
        problems.sort_by_key(|problem| problem.line);
        Err(PriceBookError { problems })
    }

    /// The book that is compiled in; read at the first call.
    #[must_use]
    pub fn bundled() -> Arc<Self> {
        Arc::clone(&BUNDLED)
    }

    /// The listed price of a call, or `None` where nothing listed fits. In this order:
    ///
    /// 1. the model a prompt router picked, if the response named one;
    /// 2. the exact id in the region, then the exact id anywhere; on mantle its own prices go before the runtime's;
    /// 3. the base model, looked up like the id (with its own nearest price);
    /// 4. the nearest price of the id: the dearest of the same model that may be called in this region, whatever the
    ///    geography prefix. Falling back from an unlisted `us.x` to `x` would charge a tenth too little; the dearest
    ///    sibling is right when AWS prices the geography like its neighbours, and else too much rather than too little.
    #[must_use]
    pub fn find(&self, query: &Query<'_>) -> Option<&Price> {
        let routed = query.invoked_model.and_then(|id| self.exact_or_nearest(id, query));
        let exact = || self.exact(query.model_id, query);
        let base = || query.base_model.and_then(|id| self.exact_or_nearest(id, query));
        routed.or_else(exact).or_else(base).or_else(|| self.nearest(query.model_id, query))
    }

    /// The price of a call under the prices that its deployment sets, or `None` where neither says anything.
    /// A field that is not set keeps the price of the book.
    #[must_use]
    pub fn price(&self, query: &Query<'_>, set: Option<&PriceOverride>) -> Option<Cow<'_, Price>> {
        let listed = self.find(query);
        let Some(set) = set.filter(|set| !set.is_empty()) else { return listed.map(Cow::Borrowed) };
        let mut price = listed.cloned().unwrap_or_else(|| self.unlisted());
        set.apply(&mut price);
        Some(Cow::Owned(price))
    }

    /// What a guardrail costs that is applied without a model (`ApplyGuardrail`).
    #[must_use]
    pub fn guardrail(&self) -> Price {
        self.unlisted()
    }

    /// Dollars per second of one model unit of provisioned throughput; never the price of a call.
    #[must_use]
    pub fn provisioned_unit_second(&self, model_id: &str, region: &str, term: &str) -> Option<Rate> {
        let fits = |at: Option<&str>| {
            let same =
                |one: &&Commitment| &*one.model_id == model_id && &*one.term == term && one.region.as_deref() == at;
            self.commitments.iter().find(same).map(|one| one.unit_second)
        };
        fits(Some(region)).or_else(|| fits(None))
    }

    /// A model the book does not know. Guardrails cost the same with every model.
    fn unlisted(&self) -> Price {
        Price { guardrail: Arc::clone(&self.guardrail), ..Price::default() }
    }

    fn exact_or_nearest(&self, model_id: &str, query: &Query<'_>) -> Option<&Price> {
        self.exact(model_id, query).or_else(|| self.nearest(model_id, query))
    }

    pub(super) fn exact(&self, model_id: &str, query: &Query<'_>) -> Option<&Price> {
        let Reference { id, region } = Reference::of(model_id, query.region)?;
        let family = self.families.get(without_geography(id))?;
        let surfaces: &[Surface] = match query.surface {
            Surface::Runtime => &[Surface::Runtime],
            Surface::Mantle => &[Surface::Mantle, Surface::Runtime],
        };
        let places = surfaces.iter().flat_map(|surface| [(*surface, Some(region)), (*surface, None)]);
        let at = |place| family.iter().find(|listing| &*listing.id == id && listing.place() == place);
        places.map(at).find_map(|listing| listing).map(|listing| &listing.price)
    }

    fn nearest(&self, model_id: &str, query: &Query<'_>) -> Option<&Price> {
        let Reference { id, region } = Reference::of(model_id, query.region)?;
        let reachable = |listing: &&Listing| {
            (listing.surface == Surface::Runtime || query.surface == Surface::Mantle)
                && listing.region.as_deref().is_none_or(|only| only == region)
        };
        let family = self.families.get(without_geography(id))?;
        family.iter().filter(reachable).map(|listing| &listing.price).max_by_key(|price| price.dearness())
    }

    fn add(&mut self, row: Row, problems: &mut Vec<Problem>) {
        let Row { line, model, region, surface, commitment, image, mut price, guardrail } = row;
        let (model, region) = (Box::<str>::from(model), region.map(Box::<str>::from));
        let mut twice = || problems.push(Problem { line, what: format!("`{model}` is priced twice") });
        if !guardrail.is_empty() {
            if !self.guardrail.is_empty() {
                twice();
            }
            self.guardrail = Arc::new(guardrail);
        }
        if let Some(term) = commitment.map(Box::<str>::from) {
            let Some(unit_second) = price.units.of(Dimension::ProvisionedSecond) else {
                problems.push(Problem { line, what: format!("`{model}` has no `provisioned_second`") });
                return;
            };
            if self.commitments.iter().any(|one| one.model_id == model && one.region == region && one.term == term) {
                twice();
            }
            self.commitments.push(Commitment { model_id: model, region, term, unit_second });
            return;
        }
        if price.is_empty() && image.is_none() {
            return;
        }
        let family = self.families.entry(without_geography(&model).into()).or_default();
        let known = family.iter_mut().find(|one| one.id == model && one.place() == (surface, region.as_deref()));
        match (known, image) {
            (Some(known), Some(image)) if known.price.images.iter().any(|one| one.same_images(&image)) => twice(),
            (Some(known), Some(image)) => known.price.images.push(image),
            // Variants may stand before the entry for all other images.
            (Some(known), None) if known.price.is_variants_only() => {
                price.images = std::mem::take(&mut known.price.images);
                known.price = price;
            }
            (Some(_), None) => twice(),
            (None, image) => {
                price.images.extend(image);
                family.push(Listing { id: model, region, surface, price });
            }
        }
    }
}

impl Listing {
    fn place(&self) -> (Surface, Option<&str>) {
        (self.surface, self.region.as_deref())
    }
}

impl fmt::Display for PriceBookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, what }) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "line {line}: {what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PriceBookError {}

#[cfg(test)]
mod tests;
