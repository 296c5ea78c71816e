from django.db import migrations


class Migration(migrations.Migration):
    """As for the names of customers."""

    dependencies = [("payments", "0001_initial")]

    operations = [
        migrations.RunSQL(
            f"ALTER INDEX {index} ALTER COLUMN {column} SET STATISTICS 1000",
            reverse_sql=f"ALTER INDEX {index} ALTER COLUMN {column} SET STATISTICS -1",
        )
        for index, column in (
            ("bank_transaction_by_part", 1),
            ("bank_transaction_by_part", 2),
            ("payment_by_part_of_payer", 1),
            ("outgoing_transfer_by_part", 1),
        )
    ]
