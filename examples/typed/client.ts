// The client of this example. The page runs client.js: this file after `tsc --strict --target es2022`.

// Each event's name and its data, as the enum `Update` in main.rs serialises them.
export interface Events {
  opened: null;
  placed: { order: number; items: string[]; giftNote: string | null };
  paid: { order: number; cents: number; by: 'card' | 'transfer' };
  'out-for-delivery': number;
  delivered: number;
}

export type Name = keyof Events;

// One of them: the name determines the type of the data.
export type Update = { [N in Name]: { name: N; data: Events[N]; id: string } }[Name];

// A browser delivers only the events that a page listens to by name. A missing or misspelt name does not compile.
const NAMES: Record<Name, true> = {
  opened: true,
  placed: true,
  paid: true,
  'out-for-delivery': true,
  delivered: true,
};

export function subscribe(url: string, on: (update: Update) => void): EventSource {
  const source = new EventSource(url);
  for (const name of Object.keys(NAMES)) {
    source.addEventListener(name, ({ data, lastEventId }) => {
      // The one place that trusts the server.
      on({ name, data: JSON.parse(data), id: lastEventId } as Update);
    });
  }
  return source;
}

// A switch without a case for each name does not compile.
export function inWords(update: Update): string {
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
