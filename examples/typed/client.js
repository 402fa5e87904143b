// The client of this example. The page runs client.js: this file after `tsc --strict --target es2022`.
// A browser delivers only the events that a page listens to by name. A missing or misspelt name does not compile.
const NAMES = {
    opened: true,
    placed: true,
    paid: true,
    'out-for-delivery': true,
    delivered: true,
};
export function subscribe(url, on) {
    const source = new EventSource(url);
    for (const name of Object.keys(NAMES)) {
        source.addEventListener(name, ({ data, lastEventId }) => {
            // The one place that trusts the server.
            on({ name, data: JSON.parse(data), id: lastEventId });
        });
    }
    return source;
}
// A switch without a case for each name does not compile.
export function inWords(update) {
    switch (update.name) {
        case 'opened':
            return 'The shop is open';
        case 'placed': {
            const note = update.data.giftNote === null ? '' : `, with a note: “${update.data.giftNote}”`;
            return `Order ${update.data.order}: ${update.data.items.join(', ')}${note}`;
        }
        case 'paid':
            return `Order ${update.data.order}: paid ${(update.data.cents / 100).toFixed(2)} by ${update.data.by}`;
        case 'out-for-delivery':
            return `Order ${update.data}: on its way`;
        case 'delivered':
            return `Order ${update.data}: delivered`;
    }
}
