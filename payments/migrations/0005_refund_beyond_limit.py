from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0004_closed_payments"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="outgoingtransfer",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("refund", "Can refund payments and send refunds to the bank"),
                    ("refund_beyond_limit", "Can refund more than REFUND_LIMIT at once"),
                ],
                "verbose_name": "outgoing transfer",
                "verbose_name_plural": "outgoing transfers",
            },
        ),
    ]
